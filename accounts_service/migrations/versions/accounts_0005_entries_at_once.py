"""No entry is added to a transaction later, also where its entries would still add up to zero."""

from collections.abc import Sequence

from alembic import op

revision: str = "accounts_0005"
down_revision: str | Sequence[str] | None = "accounts_0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute(
        """
        CREATE OR REPLACE FUNCTION refuse_unbalanced_transaction() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM (
                    SELECT transaction_id, count(*) AS entries FROM added
                    GROUP BY transaction_id HAVING bool_or(delta <> 0)
                ) AS moved
                JOIN ledger_entries AS entry USING (transaction_id)
                JOIN accounts ON accounts.id = entry.account_id
                GROUP BY transaction_id, moved.entries
                HAVING sum(entry.delta) <> 0 OR count(DISTINCT accounts.currency) <> 1
                    OR count(*) <> moved.entries
            ) THEN
                RAISE EXCEPTION
                    'entries of a transaction add up to zero, in one currency, all added at once'
                    USING ERRCODE = 'check_violation',
                        CONSTRAINT = 'ledger_entries_add_up';
            END IF;
            RETURN NULL;
        END
        $$
        """
    )


def downgrade() -> None:
    op.execute(
        """
        CREATE OR REPLACE FUNCTION refuse_unbalanced_transaction() RETURNS trigger
        LANGUAGE plpgsql AS $$
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
