"""Money that moves: entries that only add up, the house's accounts, reversals and names."""

from collections.abc import Sequence
from uuid import UUID, uuid5

import sqlalchemy as sa
from alembic import op

revision: str = "accounts_0002"
down_revision: str | Sequence[str] | None = "accounts_0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_HOUSE = UUID("6c1f3b0e-5d2a-5c7e-9b48-1f0e2d3c4b5a")
# What ISO 4217 had when this was written. A later currency needs a migration of its own.
_CURRENCIES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP
BYN BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN
ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK
JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD
MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP
PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV
WST XAD XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""


def upgrade() -> None:
    # The defaults are for processes of the version before, which may still run.
    op.add_column(
        "accounts",
        sa.Column(
            "moved_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="no later entry has an earlier time",
        ),
    )
    op.add_column(
        "accounts",
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            server_default="open",
            comment="open, frozen or closed",
        ),
    )
    op.add_column(
        "accounts",
        sa.Column(
            "held", sa.BigInteger(), nullable=False, server_default="0", comment="by open holds"
        ),
    )
    op.add_column(
        "accounts",
        sa.Column(
            "next_expiry",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="of the first of them to expire; null: none",
        ),
    )
    op.create_check_constraint(
        op.f("accounts_held_check"),
        "accounts",
        "held BETWEEN 0 AND balance",
        postgresql_not_valid=True,
    )
    op.create_check_constraint(
        op.f("accounts_next_expiry_check"),
        "accounts",
        "(held > 0) = (next_expiry IS NOT NULL)",
        postgresql_not_valid=True,
    )
    op.create_check_constraint(
        op.f("accounts_state_check"),
        "accounts",
        "state IN ('open', 'frozen', 'closed')",
        postgresql_not_valid=True,
    )
    op.create_check_constraint(
        op.f("accounts_closed_check"),
        "accounts",
        "state <> 'closed' OR balance = 0",
        postgresql_not_valid=True,
    )
    op.add_column(
        "ledger_entries",
        sa.Column(
            "kind", sa.Text(), nullable=False, server_default="opening", comment="why money moved"
        ),
    )
    op.create_check_constraint(
        op.f("ledger_entries_delta_check"),
        "ledger_entries",
        "(delta = 0) = (kind = 'opening')",
        postgresql_not_valid=True,
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("payee_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="minor units"),
        sa.Column(
            "captured", sa.BigInteger(), nullable=False, comment="of the amount; the rest was freed"
        ),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="open, captured, released or expired"
        ),
        sa.CheckConstraint("amount > 0", name=op.f("holds_amount_check")),
        sa.CheckConstraint("account_id <> payee_id", name=op.f("holds_payee_check")),
        sa.CheckConstraint(
            "captured BETWEEN 0 AND amount AND (captured > 0) = (state = 'captured')",
            name=op.f("holds_captured_check"),
        ),
        sa.CheckConstraint(
            "state IN ('open', 'captured', 'released', 'expired')", name=op.f("holds_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("holds_account_id_fkey")
        ),
        sa.ForeignKeyConstraint(["payee_id"], ["accounts.id"], name=op.f("holds_payee_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("holds_pkey")),
    )
    op.create_index(
        "holds_open_idx",
        "holds",
        ["account_id"],
        unique=False,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "reversals",
        sa.Column(
            "transfer_id", sa.Uuid(), nullable=False, comment="the transaction that was reversed"
        ),
        sa.Column("reversal_id", sa.Uuid(), nullable=False, comment="the one that reverses it"),
        sa.PrimaryKeyConstraint("transfer_id", name=op.f("reversals_pkey")),
        sa.UniqueConstraint("reversal_id", name=op.f("reversals_reversal_id_key")),
    )
    op.create_table(
        "owners",
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("username", name=op.f("owners_pkey")),
    )
    _house_accounts()
    _only_added()
    _adds_up()


def _house_accounts() -> None:
    codes = _CURRENCIES.split()
    given = sa.text(
        """
        INSERT INTO accounts (id, kind, currency, opened_at, moved_at, state, version, sequence)
        SELECT id, 'cash', currency, now(), now(), 'open', 1, 0
        FROM unnest(CAST(:ids AS uuid[]), CAST(:codes AS text[])) AS given (id, currency)
        """
    )
    op.execute(given.bindparams(ids=[uuid5(_HOUSE, f"cash/{code}") for code in codes], codes=codes))


def _only_added() -> None:
    op.execute(
        """
        CREATE FUNCTION refuse_change_of_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'entries are only added; a mistake is reversed'
                USING ERRCODE = 'restrict_violation';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER ledger_entries_are_only_added
        BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_ledger()
        """
    )
    op.execute("ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_only_added")


def _adds_up() -> None:
    op.execute(
        """
        CREATE FUNCTION refuse_unbalanced_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM (SELECT DISTINCT transaction_id FROM added WHERE delta <> 0) AS moved
                JOIN ledger_entries AS entry USING (transaction_id)
                JOIN accounts ON accounts.id = entry.account_id
                GROUP BY transaction_id
                HAVING sum(entry.delta) <> 0 OR count(DISTINCT accounts.currency) <> 1
            ) THEN
                RAISE EXCEPTION 'the entries of a transaction add up to zero, in one currency'
                    USING ERRCODE = 'check_violation',
                        CONSTRAINT = 'ledger_entries_add_up';
            END IF;
            RETURN NULL;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER ledger_entries_add_up
        AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced_transaction()
        """
    )
    op.execute("ALTER TABLE ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_add_up")


def downgrade() -> None:
    op.execute("DROP TRIGGER ledger_entries_add_up ON ledger_entries")
    op.execute("DROP FUNCTION refuse_unbalanced_transaction")
    op.execute("DROP TRIGGER ledger_entries_are_only_added ON ledger_entries")
    op.execute("DROP FUNCTION refuse_change_of_ledger")
    # Refused once they have entries.
    op.execute("DELETE FROM accounts WHERE kind = 'cash'")
    op.drop_table("owners")
    op.drop_table("reversals")
    op.drop_table("holds")
    op.drop_constraint(op.f("accounts_next_expiry_check"), "accounts", type_="check")
    op.drop_constraint(op.f("accounts_held_check"), "accounts", type_="check")
    op.drop_column("accounts", "next_expiry")
    op.drop_column("accounts", "held")
    op.drop_constraint(op.f("ledger_entries_delta_check"), "ledger_entries", type_="check")
    op.drop_column("ledger_entries", "kind")
    op.drop_constraint(op.f("accounts_closed_check"), "accounts", type_="check")
    op.drop_constraint(op.f("accounts_state_check"), "accounts", type_="check")
    op.drop_column("accounts", "state")
    op.drop_column("accounts", "moved_at")
