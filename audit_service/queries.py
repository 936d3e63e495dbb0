"""The search among the records: newest first, page by page."""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, Row, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.tables import records
from chassis.domain import BrokenField, DomainError, InvalidFields, Kind

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CURSOR: Final = struct.Struct(">qq")

_IN_LISTS: Final = [each for each in records.columns if each.name not in ("headers", "payload")]


class NoSuchRecord(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What records to find: those for which all holds that is not None.

    Times are those at which events occurred, from the first and up to, not including, the
    second. What is no event has the time at which it was kept.
    """

    subject: str | None = None
    type: str | None = None
    source: str | None = None
    event_id: UUID | None = None
    correlation_id: str | None = None
    topic: str | None = None
    valid: bool | None = None
    occurred_from: datetime | None = None
    occurred_to: datetime | None = None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A record's place in the order of the search; ``str`` makes it a cursor for clients."""

    occurred_at: datetime
    position: int

    def __str__(self) -> str:
        microseconds = (self.occurred_at - _EPOCH) // _MICROSECOND
        return base64.urlsafe_b64encode(_CURSOR.pack(microseconds, self.position)).decode()

    @classmethod
    def parse(cls, cursor: str) -> "Place":
        """Read a cursor.

        :raises InvalidFields: it is none that a page named
        """
        try:
            packed = base64.b64decode(cursor, altchars=b"-_", validate=True)
            microseconds, position = _CURSOR.unpack(packed)
            return cls(_EPOCH + microseconds * _MICROSECOND, position)
        except (ValueError, binascii.Error, struct.error, OverflowError):
            raise InvalidFields(
                BrokenField("after", "not-a-cursor", "must be `next` of an earlier page")
            ) from None


_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_END: Final = Place(datetime.max.replace(tzinfo=UTC), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, and the place to go on after; None where nothing follows."""

    rows: Sequence[Row[*tuple[Any, ...]]]
    next: Place | None


class Records:
    """The records as people look for them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, wanted: Filter, *, after: Place | None, limit: int) -> Page:
        """Return up to ``limit`` of the wanted records, those that occurred last first.

        They come without headers and payload.
        """
        query = _query(wanted, after).limit(limit + 1)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        if len(rows) <= limit:
            return Page(rows, None)
        last = rows[limit - 1]
        return Page(rows[:limit], Place(moment_of(last), last.position))

    async def record(self, position: int) -> Row[*tuple[Any, ...]]:
        """Return one record, whole.

        :raises NoSuchRecord: there is none at this position
        """
        async with self._engine.connect() as connection:
            found = await connection.execute(select(records).where(records.c.position == position))
            row = found.one_or_none()
        if row is None:
            raise NoSuchRecord(f"no record has the id {position}")
        return row


def moment_of(row: Row[*tuple[Any, ...]]) -> datetime:
    """Return the time that a record is found by."""
    # asyncpg takes the first and the last moment for infinities, which it gives without a zone.
    moment: datetime = row.occurred_at
    return moment.replace(tzinfo=UTC)


def _query(wanted: Filter, after: Place | None) -> Select[*tuple[Any, ...]]:
    """Look through one index, between two places in it.

    Which index is not left to the planner: it would walk all records by time to find those of a
    common type, and go far where that type has not come for long. An equality lets it choose; a
    range over the index's own columns, in its order, does not.
    """
    table = records.c
    order: list[Column[Any]] = [table.occurred_at, table.position]
    first = Place(wanted.occurred_from or _BEGINNING, 0)
    beyond = min(after or _END, Place(wanted.occurred_to, 0) if wanted.occurred_to else _END)
    lowest, highest = list[Any](astuple(first)), list[Any](astuple(beyond))

    equal = {
        column: value
        for column, value in (
            (table.correlation_id, wanted.correlation_id),
            (table.subject, wanted.subject),
            (table.type, wanted.type),
            (table.topic, wanted.topic),
            (table.source, wanted.source),
        )
        if value is not None
    }
    if equal:
        narrowest = next(iter(equal))
        value = equal.pop(narrowest)
        order.insert(0, narrowest)
        lowest.insert(0, value)
        highest.insert(0, value)

    conditions = [tuple_(*order) >= lowest, tuple_(*order) < highest]
    conditions += [column == value for column, value in equal.items()]
    if wanted.event_id is not None:
        conditions.append(table.event_id == wanted.event_id)
    if wanted.valid is not None:
        reason = table.invalid_reason
        conditions.append(reason.is_(None) if wanted.valid else reason.is_not(None))
    return select(*_IN_LISTS).where(*conditions).order_by(*(each.desc() for each in order))
