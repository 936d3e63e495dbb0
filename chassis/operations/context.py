"""A service as its code declares it, and that service with its database open."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from chassis.consuming.subscribers import Subscriber
from chassis.failpoints import failpoint
from chassis.operations.operator_log import OperatorLog
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Work
from chassis.settings import ServiceSettings
from chassis.timers.timer import TimerHandlers, no_timers
from contracts.topics import Topic

S = TypeVar("S", bound=ServiceSettings)
W = TypeVar("W", bound=Work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Generic[S, W]):
    """A service's name, what it publishes, and what it consumes.

    :param package: has the service's ``migrations``
    :param operations_topic: where operators' acts are published, ``<name>.operations``
    :param aggregates: those that publish their events
    :param subscribers: makes those that consume other services' events
    :param timers: makes the handlers of the timers that it schedules
    :param open_work: makes the unit of work of a command or of a chunk of events
    """

    name: str
    description: str
    package: str
    settings: type[S]
    operations_topic: Topic
    aggregates: Sequence[type[AggregateTable[Any]]] = ()
    subscribers: Callable[[S], Sequence[Subscriber[W]]]
    timers: Callable[[S], TimerHandlers[W]] = no_timers
    open_work: Callable[[Connection], W]

    @property
    def topics(self) -> Sequence[Topic]:
        """Return the topics that it publishes to."""
        return [*(each.topic for each in self.aggregates), self.operations_topic]


class ServiceRuntime(Generic[S, W]):
    """A service with its settings and its database: what every operator's act needs."""

    def __init__(
        self,
        service: Service[S, W],
        settings: S,
        database: Database,
        now: Callable[[], datetime],
    ) -> None:
        self.service = service
        self.settings = settings
        self.database = database
        self.now = now
        self.subscribers = service.subscribers(settings)
        self.timers = service.timers(settings)
        self.operator_log = OperatorLog(service.name, service.operations_topic, now)

    @asynccontextmanager
    async def act(self) -> AsyncIterator[Connection]:
        """Open the transaction of an operator's act, and commit it at the end of the block."""
        async with self.database.begin() as connection:
            yield connection
            await failpoint("operations.before-commit")
        await failpoint("operations.after-commit")


AnyRuntime: TypeAlias = ServiceRuntime[Any, Any]
"""The runtime of a service of any kind."""
