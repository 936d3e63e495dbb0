"""The search among the records: newest first, page by page."""

import base64
import binascii
import struct
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field
from sqlalchemy import Column, Row, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.tables import records
from chassis.domain import BrokenField, DomainError, InvalidFields, Kind
from chassis.web.paging import Page, PageLimit, Search, matching, page_of
from contracts.envelope import Instant
from contracts.events import ShortText, Text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CURSOR: Final = struct.Struct(">qq")

_IN_LISTS: Final = [each for each in records.columns if each.name not in ("headers", "payload")]
# Each has an index that continues in the order of the search. The index with the fewest records
# under one value comes first.
_INDEXED: Final[dict[str, Column[Any]]] = {
    name: records.c[name] for name in ("correlation_id", "subject", "type", "topic", "source")
}


class NoSuchRecord(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-record"


class RecordSearch(Search):
    """Which records to find, and which page of them.

    Times are those at which events occurred. A record that is no event has the time at which it
    was recorded.
    """

    subject: Annotated[Text | None, Field(description="The aggregate's id.")] = None
    type: Annotated[Text | None, Field(examples=["users.user-signed-up.v1"])] = None
    source: Annotated[Text | None, Field(examples=["/users"])] = None
    event_id: UUID | None = None
    correlation_id: ShortText | None = None
    topic: Annotated[Text | None, Field(examples=["users.user"])] = None
    valid: Annotated[bool | None, Field(description="False: what is no event of ours.")] = None
    occurred_from: Annotated[Instant | None, Field(alias="from", description="Inclusive.")] = None
    occurred_to: Annotated[Instant | None, Field(alias="to", description="Exclusive.")] = None
    after: Annotated[str | None, Field(max_length=64, description="`next` of the page before.")] = (
        None
    )
    limit: PageLimit = 50


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A record's position in the order of the search; ``str`` makes the text that clients get."""

    occurred_at: datetime
    position: int

    def __str__(self) -> str:
        microseconds = (self.occurred_at - _EPOCH) // _MICROSECOND
        return base64.urlsafe_b64encode(_CURSOR.pack(microseconds, self.position)).decode()

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read what a client sent.

        :raises InvalidFields: no page has named this cursor
        """
        try:
            packed = base64.b64decode(text, altchars=b"-_", validate=True)
            microseconds, position = _CURSOR.unpack(packed)
            return cls(_EPOCH + microseconds * _MICROSECOND, position)
        except (ValueError, binascii.Error, struct.error, OverflowError):
            raise InvalidFields(
                BrokenField("after", "not-a-cursor", "must be `next` of an earlier page")
            ) from None


_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_END: Final = Cursor(datetime.max.replace(tzinfo=UTC), 2**63 - 1)


class Records:
    """Finds records for operators."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, search: RecordSearch) -> Page[Row[*tuple[Any, ...]], Cursor]:
        """Return a page of the records that match, without their headers and payloads.

        :raises InvalidFields: ``after`` is no cursor
        """
        query = _query(search).limit(search.limit + 1)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return page_of(
            rows, search.limit, key=lambda row: Cursor(occurred_at_of(row), row.position)
        )

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


def occurred_at_of(row: Row[*tuple[Any, ...]]) -> datetime:
    """Return the time by which the search orders a record."""
    # asyncpg reads the first and the last time that Python has as infinities, without a zone.
    occurred_at: datetime = row.occurred_at
    return occurred_at.replace(tzinfo=UTC)


def _query(search: RecordSearch) -> Select[*tuple[Any, ...]]:
    """Return the query that reads one range of one index.

    The planner must not choose the index. For a common type it would read all records by time,
    and read very many of them if that type has not occurred for long. A condition of equality
    leaves it the choice. A range over an index's own columns, in the order of the index, does not.
    """
    order: list[Column[Any]] = [records.c.occurred_at, records.c.position]
    first = Cursor(search.occurred_from or _BEGINNING, 0)
    last = Cursor.parse(search.after) if search.after is not None else _END
    if search.occurred_to is not None:
        last = min(last, Cursor(search.occurred_to, 0))
    lowest, highest = list[Any](astuple(first)), list[Any](astuple(last))

    equal = {"event_id": records.c.event_id, **_INDEXED}
    given = (name for name in _INDEXED if getattr(search, name) is not None)
    narrowest = next(given, None)
    if narrowest is not None:
        order.insert(0, equal.pop(narrowest))
        lowest.insert(0, getattr(search, narrowest))
        highest.insert(0, getattr(search, narrowest))

    conditions = [tuple_(*order) >= lowest, tuple_(*order) < highest, *matching(search, equal)]
    if search.valid is not None:
        reason = records.c.invalid_reason
        conditions.append(reason.is_(None) if search.valid else reason.is_not(None))
    return select(*_IN_LISTS).where(*conditions).order_by(*(each.desc() for each in order))
