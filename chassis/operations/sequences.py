"""The last sequence of each aggregate: how far a reader of its topic must have come."""

from collections.abc import Mapping
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, select

from chassis.domain import DomainError, Kind
from chassis.operations import terminal
from chassis.operations.acts import Command, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.terminal import Shown
from chassis.persistence.tables import operated
from chassis.web.paging import Search, page_of
from contracts.events import Text

MOST: Final = 1_000


class NotOurTopic(DomainError):
    kind, code = Kind.NOT_FOUND, "not-our-topic"


class SequencesSearch(Search):
    """The topic to read the sequences of, and which page."""

    topic: Text
    after: Annotated[UUID | None, Field(description="`next` of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = 500


class SequenceBody(BaseModel):
    """An aggregate and its last event."""

    subject: UUID
    last_sequence: Annotated[int, Field(description="Of the last event written; 0: none yet.")]


class SequencesBody(BaseModel):
    """Aggregates in the order of their ids."""

    topic: str
    sequences: list[SequenceBody]
    next: Annotated[UUID | None, Field(description="`after` of the next page; null on the last.")]


async def sequences(runtime: AnyRuntime, search: SequencesSearch) -> SequencesBody:
    """Return a page of the aggregates of a topic, each with its last sequence.

    :raises NotOurTopic: the service does not publish it
    """
    columns = _columns(runtime)
    if search.topic not in columns:
        published = ", ".join(columns)
        raise NotOurTopic(f"this service publishes {published}, and not {search.topic}")
    id_, sequence = columns[search.topic]
    query = select(id_, sequence).order_by(id_).limit(search.limit + 1)
    if search.after is not None:
        query = query.where(id_ > search.after)
    async with runtime.database.connect() as connection:
        rows = (await connection.execute(query)).all()
    found = page_of(rows, search.limit, key=lambda row: row[0])
    return SequencesBody(
        topic=search.topic,
        sequences=[SequenceBody(subject=id_, last_sequence=last) for id_, last in found.items],
        next=found.next,
    )


def _columns(runtime: AnyRuntime) -> Mapping[str, tuple[ColumnElement[UUID], ColumnElement[int]]]:
    """Return, for each topic of the service, where its aggregates' ids and sequences are."""
    service = runtime.service
    return {
        each.topic.name: (each.table.c.id, each.table.c.sequence) for each in service.aggregates
    } | {service.operations_topic.name: (operated.c.subject, operated.c.last_sequence)}


def _page_shown(found: SequencesBody) -> Shown:
    return terminal.page(found.sequences, tuple(SequenceBody.model_fields), found.next)


SEQUENCES: Final = Query(
    summary="The last sequence of each aggregate",
    description="Return how many events each aggregate has, whether or not they are published yet.",
    input=SequencesSearch,
    output=SequencesBody,
    run=sequences,
    route=Route("GET", "/sequences", "get_sequences"),
    command=Command(name="sequences", show=_page_shown, arguments=("topic",)),
)
