"""Dead letters: events that could not be handled, parked whole until an operator decides."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final

import structlog
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from chassis import telemetry
from chassis.consuming.records import EventIdentity, Record, header_as_json, header_from_json
from chassis.correlation import new_id
from chassis.domain import DomainError, Kind
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import UNKNOWN_TOPIC_ID, parked, progress

log = structlog.get_logger(__name__)

_LONGEST_MESSAGE: Final = 1_000
_COUNT_AT_MOST: Final = 100_000


class ParkReason(StrEnum):
    """Why an event was parked."""

    FAILED = "failed"
    BEHIND = "behind"
    FORKED = "forked"
    NOT_UNDERSTOOD = "not-understood"
    VERSION_MISSED = "version-missed"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with an event; the message quotes nothing of the event."""

    reason: ParkReason
    code: str
    message: str
    tries: int = 1
    first_tried_at: datetime | None = None

    #: The code of an error that no rule is known for.
    UNEXPECTED: ClassVar[str] = "unexpected-error"

    @classmethod
    def of(cls, error: BaseException, *, tries: int, first_tried_at: datetime) -> "Failure":
        """Describe an exception: a domain error by its code and message, another by its type."""
        if isinstance(error, DomainError):
            code, message = error.code, str(error)
        else:
            # The message of an unknown exception may quote the event, and so personal data.
            code, message = cls.UNEXPECTED, type(error).__qualname__
        # PostgreSQL keeps no NUL, and what can't be kept could not be parked.
        message = message.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_LONGEST_MESSAGE]
        return cls(ParkReason.FAILED, code, message, tries, first_tried_at)


BEHIND = Failure(ParkReason.BEHIND, "behind-parked", "An earlier event of this subject is parked.")
FORKED = Failure(
    ParkReason.FORKED,
    "forked-history",
    "This number was used before, by an older event: the producer was restored from a copy.",
)


def not_understood(message: str) -> Failure:
    """Return the failure of a record that is no event, or none that the subscriber can read."""
    return Failure(ParkReason.NOT_UNDERSTOOD, "not-understood", message)


def version_missed(subscriber: str) -> Failure:
    """Return the failure of an event whose fact would be missed if the event were passed over."""
    return Failure(
        ParkReason.VERSION_MISSED,
        "version-missed",
        f"{subscriber} has no handler for this version, and did not handle the fact in another:"
        " it was changed between the two, or the other one was discarded.",
    )


def worker_died(tries: int, first_tried_at: datetime) -> Failure:
    """Return the failure of an event whose workers died before they could report one."""
    return Failure(
        ParkReason.FAILED,
        "worker-died",
        "Every worker that began it died before it was done.",
        tries,
        first_tried_at,
    )


class CannotRelease(DomainError):
    """A parked event can't be handled now; nothing was changed."""

    kind = Kind.CONFLICT


class SeenAlready(CannotRelease):
    code = "seen-already"


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A parked event as a record again."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @classmethod
    def of(cls, row: Row) -> "ParkedRecord":
        """Make it from a row of ``parked``: as it came, or with an operator's payload."""
        if row.edited_payload is None:
            value, headers = row.payload, headers_in(row.headers)
        else:
            # The headers belong to the first payload: without any, the value identifies the event.
            value, headers = row.edited_payload, []
        return cls(row.topic, row.partition, row.offset, row.key, value, headers)


def headers_in(kept: Iterable[Sequence[str | None]]) -> list[tuple[str, bytes | None]]:
    """Return the headers that a parked event came with, from the form in which they are kept."""
    return [header_from_json(each) for each in kept]


@dataclass(frozen=True, slots=True)
class ParkedSubject:
    """An aggregate whose event is parked by an error of its own: the error's code, and where."""

    subject: str
    code: str
    partition: int = 0
    offset: int = 0


_to_log: ContextVar[list[dict[str, Any]] | None] = ContextVar("parked_to_log", default=None)


@contextmanager
def logged_when_parked() -> Iterator[None]:
    """Log each event that is parked in the block, if the block does not raise.

    The transaction commits within the block: what is rolled back is not parked.
    """
    lines: list[dict[str, Any]] = []
    token = _to_log.set(lines)
    try:
        yield
    finally:
        _to_log.reset(token)
    for line in lines:
        if line["reason"] is ParkReason.BEHIND:
            log.info("event-parked", **line)  # it waits for one that has a warning
        else:
            log.warning("event-parked", **line)


class Parking:
    """The events that one subscriber parks in one transaction, which has moved its progress."""

    def __init__(self, subscriber: str, now: Callable[[], datetime]) -> None:
        self.stopped: list[ParkedSubject] = []
        self._subscriber = subscriber
        self._now = now
        self._rows: list[dict[str, Any]] = []

    def park(self, record: Record, identity: EventIdentity | None, failure: Failure) -> None:
        """Park a record at the flush, with its bytes and headers as they came."""
        now = self._now()
        if identity is not None and failure.reason in (
            ParkReason.FAILED,
            ParkReason.NOT_UNDERSTOOD,
            ParkReason.VERSION_MISSED,
        ):
            self.stopped.append(
                ParkedSubject(identity.subject, failure.code, record.partition, record.offset)
            )
        self._rows.append(
            {
                "id": new_id(),
                "subscriber": self._subscriber,
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "key": record.key,
                "payload": record.value,
                "headers": [header_as_json(name, value) for name, value in record.headers],
                "subject": identity.subject if identity else None,
                "sequence": identity.sequence if identity else None,
                "event_id": identity.event_id if identity else None,
                "type": identity.type if identity else None,
                "reason": failure.reason,
                "error_code": failure.code,
                "error_message": failure.message,
                "tries": failure.tries,
                "first_tried_at": failure.first_tried_at or now,
                "last_tried_at": now,
            }
        )

    async def flush(self, connection: Connection) -> None:
        """Write the parked events, each at its place in the topic that progress is in.

        Another topic of that name, which was deleted, may have had an event parked at that place.
        """
        rows, self._rows = self._rows, []
        if rows:
            topic_ids = {
                (row.topic, row.partition): row.topic_id
                for row in await connection.execute(_TOPIC_IDS, {"of_subscriber": self._subscriber})
            }
            for each in rows:
                each["topic_id"] = topic_ids.get(
                    (each["topic"], each["partition"]), UNKNOWN_TOPIC_ID
                )
            await connection.execute(insert(parked).on_conflict_do_nothing(), rows)
            telemetry.consumer_parked.labels(self._subscriber).inc(len(rows))
            if (lines := _to_log.get()) is not None:
                lines += [{name: each[name] for name in _IN_LOG} for each in rows]


_IN_LOG: Final = ("subscriber", "reason", "error_code", "topic", "partition", "offset")
_TOPIC_IDS: Final = select(progress.c.topic, progress.c.partition, progress.c.topic_id).where(
    progress.c.subscriber == bindparam("of_subscriber")
)

_WAITING: Final = text(
    "SELECT named, (SELECT count(*) FROM"
    " (SELECT FROM parked WHERE subscriber = named LIMIT :most) AS bounded) AS events"
    " FROM unnest(CAST(:names AS text[])) AS named"
)


async def waiting(connection: Connection, subscribers: Collection[str]) -> Mapping[str, int]:
    """Return how many events of each subscriber are parked, counted up to a bound."""
    names = list(subscribers)
    found = await connection.execute(_WAITING, {"names": names, "most": _COUNT_AT_MOST})
    return {row.named: row.events for row in found}
