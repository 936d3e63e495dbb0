"""The last sequence of each aggregate: what a reader of its topic must have come to."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, select

from chassis.domain import DomainError, Kind
from chassis.operations.context import ServiceRuntime
from chassis.persistence.tables import operated
from contracts.events import Text

MOST: Final = 1_000


class NotOurTopic(DomainError):
    kind, code = Kind.NOT_FOUND, "not-our-topic"


class SequenceBody(BaseModel):
    """An aggregate and its last event."""

    subject: UUID
    last_sequence: Annotated[int, Field(description="Of the last event written; 0: none yet.")]


class SequencesBody(BaseModel):
    """Aggregates in the order of their ids."""

    topic: str
    sequences: list[SequenceBody]
    next: Annotated[UUID | None, Field(description="`after` of the next page; null on the last.")]


class SequencesSearch(BaseModel):
    """Of which topic, and which page."""

    model_config = ConfigDict(extra="forbid")

    topic: Text
    after: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = 500


class Sequences:
    """What one service has published, or will have: of every aggregate the last sequence."""

    def __init__(self, operations: ServiceRuntime[Any, Any]) -> None:
        self._engine = operations.engine
        self._columns: Mapping[str, tuple[ColumnElement[UUID], ColumnElement[int]]] = {
            each.topic.name: (each.table.c.id, each.table.c.sequence)
            for each in operations.service.aggregates
        } | {
            operations.service.operations_topic.name: (operated.c.subject, operated.c.last_sequence)
        }

    async def page(self, search: SequencesSearch) -> SequencesBody:
        """Return a page of them.

        :raises NotOurTopic: the service does not publish it
        """
        if search.topic not in self._columns:
            ours = ", ".join(self._columns)
            raise NotOurTopic(f"this service publishes {ours}, and not {search.topic}")
        id_, sequence = self._columns[search.topic]
        query = select(id_, sequence).order_by(id_).limit(search.limit + 1)
        if search.after is not None:
            query = query.where(id_ > search.after)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        page = [SequenceBody(subject=id_, last_sequence=last) for id_, last in rows[: search.limit]]
        return SequencesBody(
            topic=search.topic,
            sequences=page,
            next=page[-1].subject if len(rows) > len(page) else None,
        )
