"""How long the oldest row of the outbox has waited, and a limit above which commands are refused.

Where a slot gives the outbox to its reader, also how much of the log that reader has still to read.

Events wait in the outbox while Kafka is away, so it is the disk that ends this. One query every two
seconds finds the age, for all commands of the process.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
from sqlalchemy import text

from chassis import telemetry
from chassis.domain import DomainError, Kind
from chassis.periodic import Periodic
from chassis.persistence.database import Database
from chassis.persistence.outbox import SLOT_GIVES_OUTBOX, before_append
from chassis.persistence.transactor import Transact, Work

log = structlog.get_logger(__name__)

T = TypeVar("T")
W = TypeVar("W", bound=Work)

_LOOK_EVERY_S: Final = 2.0
# Rows behind one that was set aside wait for an operator, not for Kafka.
_OLDEST: Final = text("""
    SELECT extract(epoch FROM clock_timestamp() - created_at)::float8
    FROM outbox
    WHERE NOT EXISTS (
        SELECT FROM outbox_set_aside AS stuck
        WHERE stuck.aggregatetype = outbox.aggregatetype
          AND stuck.aggregateid = outbox.aggregateid
    )
    ORDER BY position
    LIMIT 1
""")


# It is inactive while nobody is connected to it.
_SLOT: Final = text(f"""
    SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::float8 AS unread_bytes,
        coalesce(extract(epoch FROM clock_timestamp() - inactive_since), 0)::float8 AS inactive_s
    {SLOT_GIVES_OUTBOX}
""")  # noqa: S608


class OutboxTooOld(DomainError):
    """Events have waited for so long that no command may add more."""

    kind, code = Kind.UNAVAILABLE, "outbox-too-old"


class OutboxAge(Periodic):
    """A component that looks how old the oldest waiting row is.

    :param limit_s: above this commands are refused; None: never
    """

    name = "outbox-age"

    def __init__(self, database: Database, limit_s: float | None) -> None:
        super().__init__()
        self._database = database
        self._limit_s = limit_s
        self._age_s = 0.0
        self._missing_slot: str | None = None

    async def step(self) -> float:
        try:
            async with self._database.connect() as connection:
                oldest = await connection.scalar(_OLDEST)
                slot = connection.outbox_slot
                reading = (
                    (await connection.execute(_SLOT, {"slot": slot})).first() if slot else None
                )
        except Exception as error:  # noqa: BLE001 - the next step looks again
            log.info("outbox-age-unknown", error=type(error).__name__)
        else:
            self._age_s = max(0.0, oldest or 0.0)
            telemetry.outbox_age_seconds.set(self._age_s)
            self._missing_slot = slot if reading is None else None
            telemetry.outbox_slot_bytes.set(reading.unread_bytes if reading else 0)
            telemetry.outbox_slot_inactive_seconds.set(reading.inactive_s if reading else 0)
        return _LOOK_EVERY_S

    def trouble(self) -> str | None:
        if self._is_too_old():
            return f"commands are refused: events have waited for {self._age_s:.0f} s"
        if self._missing_slot is not None:
            return f"the slot {self._missing_slot} or its publication is not there, or is invalid"
        return None

    def limited(self, transact: Transact[W]) -> Transact[W]:
        """Return what runs commands as ``transact`` does, but refuses them above the limit.

        One that publishes nothing is carried out: a repeat of one that was answered, for example.

        :raises OutboxTooOld: of each command that publishes, while the limit is exceeded
        """

        async def run(body: Callable[[W], Awaitable[T]], /) -> T:
            token = before_append.set(self._refuse)
            try:
                return await transact(body)
            finally:
                before_append.reset(token)

        return run

    def _is_too_old(self) -> bool:
        return self._limit_s is not None and self._age_s > self._limit_s

    def _refuse(self) -> None:
        if self._is_too_old():
            raise OutboxTooOld("events can't be published now; try again later")
