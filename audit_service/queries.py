"""The search among the records: newest first, page by page."""

import base64
import binascii
import struct
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field
from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from audit_service.tables import record_numbers, records
from chassis.domain import BrokenField, DomainError, InvalidFields, Kind
from chassis.persistence.database import Database, Row
from chassis.web.paging import Page, PageLimit, Search, page_of
from contracts.envelope import Instant
from contracts.events import ShortText
from contracts.events import Text as EventText

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CURSOR: Final = struct.Struct(">qq")

_c: Final = records.c
_IN_LISTS: Final = [each for each in records.columns if each.name not in ("headers", "payload")]
# Each has an index of its own, which continues in the order of the search. The one with the fewest
# records under one value comes first.
_NARROW: Final = {
    "correlation_id": _c.correlation_id,
    "client_correlation_id": _c.client_correlation_id,
    "subject": _c.subject,
}
# The columns with which the index of kinds begins, as they are written there.
_NONE: Final[ColumnElement[str]] = literal_column("''")
_KIND: Final = {
    "type": func.coalesce(_c.type, _NONE),
    "topic": _c.topic,
    "source": func.coalesce(_c.source, _NONE),
}
_FROM: Final = (
    bindparam("first_at", type_=_c.occurred_at.type),
    bindparam("first_position", type_=_c.position.type),
)
_TO: Final = (
    bindparam("last_at", type_=_c.occurred_at.type),
    bindparam("last_position", type_=_c.position.type),
)
_MOST: Final = bindparam("most", type_=Integer)
_EQUAL: Final = {
    "event_id": _c.event_id,
    **_NARROW,
    "type": _c.type,
    "topic": _c.topic,
    "source": _c.source,
}


class NoSuchRecord(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-record"


class RecordSearch(Search):
    """Which records to find, and which page of them.

    Times are those at which events occurred. A record that is no event has the time at which it
    was recorded.
    """

    subject: Annotated[EventText | None, Field(description="The aggregate's id.")] = None
    type: Annotated[EventText | None, Field(examples=["users.user-signed-up.v1"])] = None
    source: Annotated[EventText | None, Field(examples=["/users"])] = None
    event_id: UUID | None = None
    correlation_id: ShortText | None = None
    client_correlation_id: Annotated[
        ShortText | None,
        Field(
            description="What a client calls its request. Clients choose it, so records of others"
            " may be found; what follows from a request is found by its correlation_id."
        ),
    ] = None
    topic: Annotated[EventText | None, Field(examples=["users.user"])] = None
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

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, search: RecordSearch) -> Page[Row, Cursor]:
        """Return a page of the records that match, without their headers and payloads.

        :raises InvalidFields: ``after`` is no cursor
        """
        query, values = _query(search)
        async with self._database.connect() as connection:
            rows = (await connection.execute(query, values)).all()
        return page_of(
            rows, search.limit, key=lambda row: Cursor(occurred_at_of(row), row.position)
        )

    async def record(self, position: int) -> Row:
        """Return one record, whole.

        :raises NoSuchRecord: there is none at this position
        """
        async with self._database.connect() as connection:
            row = (await connection.execute(_ONE.where(_c.position == position))).one_or_none()
        if row is None:
            raise NoSuchRecord(f"no record has the id {position}")
        return row


def occurred_at_of(row: Row) -> datetime:
    """Return the time by which the search orders a record."""
    # asyncpg reads the first and the last time that Python has as infinities, without a zone.
    occurred_at: datetime = row.occurred_at
    return occurred_at.replace(tzinfo=UTC)


_ONE: Final = select(records, record_numbers.c.number).outerjoin(
    record_numbers, record_numbers.c.position == _c.position
)


def _query(search: RecordSearch) -> tuple[Select[*tuple[Any, ...]], Mapping[str, Any]]:
    """Return the query that reads one page, and one record more, and its values.

    The planner must not choose the index. For a common type it would read all records by time,
    and read very many of them if that type has not occurred for long. A condition of equality
    leaves it the choice. A range over an index's own columns, in the order of the index, does not.
    """
    first = Cursor(search.occurred_from or _BEGINNING, 0)
    last = Cursor.parse(search.after) if search.after is not None else _END
    if search.occurred_to is not None:
        last = min(last, Cursor(search.occurred_to, 0))

    given = {name: getattr(search, name) for name in _EQUAL}
    given = {name: value for name, value in given.items() if value is not None}
    values = given | {
        "first_at": first.occurred_at,
        "first_position": first.position,
        "last_at": last.occurred_at,
        "last_position": last.position,
        "most": search.limit + 1,
    }
    if not given.keys() - _KIND.keys() and (given or search.valid is False):
        if "type" not in given and search.valid is False:
            values["type"] = ""  # that of what is no event
        of_type = "type" in values
        others = frozenset(given.keys() - {"type"})
        return _of_kinds(of_type=of_type, given=others, valid=search.valid), values
    narrowest = next((name for name in _NARROW if name in given), None)
    under: dict[ColumnElement[Any], ColumnElement[Any]] = {}
    if narrowest is not None:
        under[_NARROW[narrowest]] = bindparam(narrowest, type_=Text())
    where = [_EQUAL[name] == bindparam(name) for name in given if name != narrowest]
    if narrowest == "client_correlation_id":
        where.append(_c.client_correlation_id.is_not(None))  # its index has no others
    return _range(under, valid=search.valid).where(*where), values


@cache
def _of_kinds(*, of_type: bool, given: Set[str], valid: bool | None) -> Select[*tuple[Any, ...]]:
    """Return the query that reads a page of each kind that is searched, and merges them.

    A kind is a type on a topic from a source. There are few kinds, however many records there are.

    :param of_type: only of one type
    :param given: which of topic and source is given
    """
    kinds = _kinds(of_type=of_type)
    page = _range({_KIND[name]: kinds.c[name] for name in _KIND}, valid=valid).lateral("page")
    # Of all kinds: in the search for kinds this would have the index read for each of them.
    searched = [kinds.c[name] == bindparam(name) for name in given]
    if valid is not None:
        searched.append(kinds.c.type != _NONE if valid else kinds.c.type == _NONE)
    return (
        select(*(page.c[each.name] for each in _IN_LISTS))
        .select_from(kinds.join(page, true()))
        .where(*searched)
        .order_by(page.c.occurred_at.desc(), page.c.position.desc())
        .limit(_MOST)
    )


def _kinds(*, of_type: bool) -> CTE:
    """Return the kinds there are, of one type or of all: each is found by one descent."""
    # No equality, and no second lower bound: the descent would begin there each time.
    one = (
        select(*(column.label(name) for name, column in _KIND.items()))
        .where(*([_KIND["type"] <= bindparam("type")] if of_type else []))
        .order_by(*_KIND.values())
        .limit(literal_column("1"))
    )
    first = one.where(_KIND["type"] >= bindparam("type")) if of_type else one
    found = first.cte("kinds", recursive=True)
    behind = tuple_(*_KIND.values()) > tuple_(*(found.c[name] for name in _KIND))
    following = one.where(behind).lateral("following")
    return found.union_all(
        select(*(following.c[name] for name in _KIND)).select_from(found.join(following, true()))
    )


def _range(
    under: Mapping[ColumnElement[Any], ColumnElement[Any]], *, valid: bool | None
) -> Select[*tuple[Any, ...]]:
    """Return the query that reads one range of one index.

    :param under: the columns with which the index begins, and the value of each
    """
    order = [*under, _c.occurred_at, _c.position]
    conditions = [
        tuple_(*order) >= tuple_(*under.values(), *_FROM),
        tuple_(*order) < tuple_(*under.values(), *_TO),
    ]
    if valid is not None:
        reason = _c.invalid_reason
        conditions.append(reason.is_(None) if valid else reason.is_not(None))
    return (
        select(*_IN_LISTS)
        .where(*conditions)
        .order_by(*(each.desc() for each in order))
        .limit(_MOST)
    )
