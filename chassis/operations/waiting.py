"""What waits for an operator's decision, as a reason that readiness gives."""

from collections import defaultdict
from typing import Final

from asyncpg import UndefinedTableError
from sqlalchemy import text

from chassis.persistence.database import Database, is_away

COUNT_AT_MOST: Final = 1_000

#: Each looks at a bounded number of rows: it is asked as often as a probe asks for readiness.
_PARKED: Final = text(
    "SELECT subscriber, error_code, count(*) AS events FROM"
    " (SELECT subscriber, error_code FROM parked LIMIT :most) AS bounded"
    " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
)
_SET_ASIDE: Final = text(
    "SELECT aggregatetype AS topic, count(*) AS rows FROM"
    " (SELECT aggregatetype FROM outbox_set_aside LIMIT :most) AS bounded GROUP BY 1 ORDER BY 1"
)
_TIMERS: Final = text(
    "SELECT count(*) FROM (SELECT FROM next_timers WHERE next_at IS NULL LIMIT :most) AS bounded"
)


class WaitingForOperator:
    """A check of readiness that never makes a process unready."""

    name: Final = "waits-for-operator"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def trouble(self) -> str | None:
        """Return what is parked and set aside, counted up to a bound, or None where nothing is.

        None also where the database is away or its schema is too old, which other checks report.
        """
        most = {"most": COUNT_AT_MOST}
        try:
            async with self._database.connect() as connection:
                parked = (await connection.execute(_PARKED, most)).all()
                set_aside = (await connection.execute(_SET_ASIDE, most)).all()
                timers = int(await connection.scalar(_TIMERS, most) or 0)
        except Exception as error:
            if is_away(error) or isinstance(error, UndefinedTableError):
                return None
            raise
        errors: dict[str, dict[str, int]] = defaultdict(dict)
        for subscriber, code, events in parked:
            errors[subscriber][code] = events
        reasons = [
            f"parked events of {subscriber}: {_listed(counts)}"
            for subscriber, counts in sorted(errors.items())
        ]
        reasons += [f"rows set aside of {topic}: {counted(rows)}" for topic, rows in set_aside]
        if timers:
            reasons.append(f"parked timers: {counted(timers)}")
        return "; ".join(reasons) or None


def counted(number: int) -> str:
    """Return a number as text that says where it was not counted on."""
    return str(number) if number < COUNT_AT_MOST else f"{number:,} or more"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{counted(number)} {code}" for code, number in counts.items())
