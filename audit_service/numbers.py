"""Numbers the records 1, 2, 3 and so on: a component that does it in batches, after they commit."""

from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import BigInteger, Integer, bindparam, select, text, update

from audit_service import tables
from chassis.failpoints import failpoint
from chassis.periodic import Periodic
from chassis.persistence.database import Database

_NUMBER_EVERY_S: Final = 1.0
_BATCH: Final = 10_000
_MOST_BATCHES: Final = 10

_log = structlog.get_logger(__name__)
_numbered = Counter("audit_records_numbered", "Records that were given their number.")


class RecordNumbers(Periodic):
    """A component that gives each committed record the next number, within a second or so.

    The numbers have no gap, and follow the offsets of each partition. A transaction that adds
    records waits for nothing here. Any number of processes may run it: one numbers at a time.
    """

    name = "record-numbers"

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._trouble: str | None = None

    def trouble(self) -> str | None:
        return self._trouble

    async def step(self) -> float:
        try:
            for _ in range(_MOST_BATCHES):
                if await self.number() < _BATCH or self._stopped.is_set():
                    break
            self._trouble = None
        except Exception as error:  # noqa: BLE001 - the next step numbers what is left
            self._trouble = f"records are not numbered: {type(error).__qualname__}"
            _log.warning("records-not-numbered", error=type(error).__qualname__)
        return _NUMBER_EVERY_S

    async def number(self) -> int:
        """Number up to ten thousand records, and return how many.

        0: none is left, or another process numbers them.
        """
        async with self._database.begin() as connection:
            if not await connection.scalar(_TRY_LOCK):
                return 0
            before = (await connection.execute(_STATE)).one()
            # In this order: who commits in between is not among the writers, but the statement
            # that numbers sees what it added.
            highest = int(await connection.scalar(_HIGHEST) or 0)
            writers = set(await connection.scalars(_WRITERS))
            values = {"numbered_to": before.numbered_to, "most": _BATCH}
            count, last = (await connection.execute(_NUMBER, values)).one()

            # Who added records when `seen_to` was the highest position may yet have a lower one.
            closed_to = before.numbered_to if writers & set(before.writers) else before.seen_to
            numbered_to = (
                closed_to if count < _BATCH else max(before.numbered_to, min(closed_to, last))
            )
            after: dict[str, object] = {"numbered_to": numbered_to}
            if numbered_to == before.seen_to:
                after |= {"seen_to": highest, "writers": sorted(writers)}
            if after != {name: getattr(before, name) for name in after}:
                await connection.execute(update(tables.numbering).values(**after))
            if count:
                await failpoint("numbers.before-commit")
        if count:
            await failpoint("numbers.after-commit")
        _numbered.inc(count)
        return int(count)


# Where there is nothing to do, this is all that is asked.
_TRY_LOCK: Final = text(
    """
    SELECT pg_try_advisory_xact_lock(hashtextextended('audit.numbers', 0))
    WHERE (SELECT max(position) FROM records) > (SELECT numbered_to FROM numbering)
    """
)
_STATE: Final = select(tables.numbering)
_HIGHEST: Final = text("SELECT max(position) FROM records")
# A transaction that adds records locks the table before it takes its first position, until it ends.
_WRITERS: Final = text(
    """
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = 'records'::regclass AND mode = 'RowExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
# Both sides are read from `numbered_to` on, each by its index.
_NUMBER: Final = text(
    """
    WITH given AS (
        INSERT INTO record_numbers (number, position)
        SELECT row_number() OVER (ORDER BY position)
            + coalesce((SELECT max(number) FROM record_numbers), 0), position
        FROM (
            SELECT position FROM records AS r
            WHERE position > :numbered_to AND NOT EXISTS (
                SELECT FROM record_numbers AS n
                WHERE n.position > :numbered_to AND n.position = r.position
            )
            ORDER BY position LIMIT :most
        ) AS next
        RETURNING position
    )
    SELECT count(*), max(position) FROM given
    """
).bindparams(bindparam("numbered_to", type_=BigInteger), bindparam("most", type_=Integer))
