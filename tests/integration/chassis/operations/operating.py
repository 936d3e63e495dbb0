"""The path service with one kind of aggregate, and its operators' routes."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID, uuid4

import httpx
from fastapi import Header
from sqlalchemy import BigInteger, Column, Table, Uuid

from chassis.consuming.subscribers import Subscriber
from chassis.domain import Aggregate, DomainEvent
from chassis.operations.context import Service, ServiceRuntime
from chassis.operations.operator_log import Operator
from chassis.operations.routes import operations_routes
from chassis.persistence import tables
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.database import Database, Row
from chassis.settings import ServiceSettings
from chassis.web.app import create_app
from chassis.web.auth import OPERATOR, NotAuthenticated, OperatorsOnly, Principal
from chassis.web.health import Health
from contracts.events import IntegrationEvent
from contracts.operations import ACTS
from contracts.topics import Topic
from contracts.users import UsersEventWithheldV1, UserSignedUpV1
from tests.integration.chassis.path import PathWork, metadata, rows, topic_of_its_own, utc_now

ADA: Final = Principal(UUID(int=1), frozenset({OPERATOR}))
BY_ADA: Final = Operator(str(ADA.id), "as a test wants it")

things = Table(
    "things",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)


def topic_with_withheld(partitions: int = 2) -> Topic:
    return replace(topic_of_its_own(partitions), events=(UserSignedUpV1, UsersEventWithheldV1))


def _not_published(_event: DomainEvent) -> Sequence[IntegrationEvent]:
    return []


def service_of(
    topic: Topic, subscribers: Sequence[Subscriber[PathWork]] = ()
) -> Service[ServiceSettings, PathWork]:
    """Describe a service that publishes to the topic and has these subscribers."""
    of_it = topic

    class Things(AggregateTable[Aggregate]):
        table: ClassVar[Table] = things
        topic: ClassVar[Topic] = of_it
        translate = staticmethod(_not_published)

        def to_row(self, aggregate: Aggregate) -> dict[str, Any]:
            return {}

        def from_row(self, row: Row) -> Aggregate:
            return Aggregate(row.id, version=row.version, sequence=row.sequence)

    return Service(
        name="test",
        description="For tests.",
        package="test",
        settings=ServiceSettings,
        operations_topic=Topic(
            name=f"test.operations-{uuid4().hex[:12]}",
            key="id of what was acted on",
            owner="test",
            consumers=(),
            events=ACTS,
            partitions=1,
        ),
        aggregates=[Things],
        subscribers=lambda _settings: subscribers,
        open_work=PathWork,
    )


def runtime_of(
    service: Service[ServiceSettings, PathWork],
    settings: ServiceSettings,
    engine: Database,
    on_commit: Callable[[], None] = lambda: None,
) -> ServiceRuntime[ServiceSettings, PathWork]:
    engine.on_commit(tables.outbox, on_commit)
    return ServiceRuntime(service, settings, engine, utc_now)


async def _by_role(role: Annotated[str, Header()] = "operator") -> Principal:
    """Take the principal from the header ``role`` instead of a token."""
    match role:
        case "operator":
            return ADA
        case "user":
            raise OperatorsOnly
        case _:
            raise NotAuthenticated


@asynccontextmanager
async def asking(runtime: ServiceRuntime[Any, PathWork]) -> AsyncIterator[httpx.AsyncClient]:
    """Open an HTTP client of an operator; the header ``role`` makes it another's."""
    app = create_app(
        title="Test",
        description="For tests.",
        version="1",
        settings=runtime.settings,
        routers=[operations_routes(runtime, _by_role)],
        health=Health(),
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def acts_of(database: str) -> list[tuple[str, str, int]]:
    """Return type, subject and sequence of all acts in the outbox, in their order."""
    found = await rows(
        database,
        "SELECT type, aggregateid, sequence FROM outbox WHERE type LIKE 'operations.%'"
        " ORDER BY position",
    )
    return [(row["type"], row["aggregateid"], row["sequence"]) for row in found]
