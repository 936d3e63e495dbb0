"""Adds the ledger up every ten minutes, and reports what does not come out: it always must."""

from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import text

from chassis.periodic import Periodic
from chassis.persistence.database import Database

_EVERY_S: Final = 600.0
_AGAIN_AFTER_S: Final = 60.0
# What a ledger of one currency makes is zero, and so in all of them together: no sum of one
# currency hides that of another, since each counts by its distance from zero.
_TRIAL_BALANCE: Final = text(
    """
    SELECT coalesce(sum(abs(made)), 0)::bigint FROM (
        SELECT sum(delta) AS made
        FROM ledger_entries JOIN accounts ON accounts.id = account_id
        GROUP BY currency
    ) AS of_currency
    """
)
_WRONG_BALANCES: Final = text(
    """
    SELECT count(*) FROM (
        SELECT FROM accounts LEFT JOIN ledger_entries ON account_id = accounts.id
        WHERE balance IS NOT NULL
        GROUP BY accounts.id
        HAVING balance <> coalesce(sum(delta), 0)
    ) AS wrong
    """
)

_log = structlog.get_logger(__name__)
_trial_balance = Gauge(
    "accounts_trial_balance_minor_units",
    "What all entries add up to, by its distance from zero in each currency.",
)
_wrong_balances = Gauge(
    "accounts_wrong_balances", "Accounts whose balance is not the sum of their entries."
)
_checked_at = Gauge(
    "accounts_ledger_checked_timestamp_seconds",
    "When the ledger was last added up, in Unix time; 0: not by this process.",
)


class LedgerCheck(Periodic):
    """A component that adds the ledger up; each of its two statements is of one moment."""

    name = "ledger-check"

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._trouble: str | None = None

    def trouble(self) -> str | None:
        return self._trouble

    async def step(self) -> float:
        try:
            async with self._database.connect() as connection:
                made = int(await connection.scalar(_TRIAL_BALANCE))
                wrong = int(await connection.scalar(_WRONG_BALANCES))
        except Exception as error:  # noqa: BLE001 - the next step adds up again
            _log.warning("ledger-not-checked", error=type(error).__qualname__)
            return _AGAIN_AFTER_S
        _trial_balance.set(made)
        _wrong_balances.set(wrong)
        _checked_at.set_to_current_time()
        self._trouble = None
        if made or wrong:
            self._trouble = (
                f"the ledger does not add up: all entries make {made}, and {wrong} balances are"
                " wrong; see docs/operations.md#the-ledger"
            )
        return _EVERY_S
