"""What of a service its operators can see and repair, and with what."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.aggregates import AggregateTable
from chassis.failpoints import failpoint
from chassis.operations.acts import Acts
from chassis.settings import ServiceSettings
from chassis.subscribers import Subscriber
from chassis.transactor import Work
from contracts.topics import Topic

W = TypeVar("W", bound=Work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operable(Generic[W]):
    """A service as its operators know it.

    :param topic: where it tells what they did, ``<service>.operations``
    :param aggregates: whose events it publishes
    :param subscribers: that take others' events, and may park them
    :param open_work: makes the unit of work that subscribers get
    """

    service: str
    topic: Topic
    aggregates: Sequence[type[AggregateTable[Any]]] = ()
    subscribers: Sequence[Subscriber[W]]
    open_work: Callable[[AsyncConnection], W]

    @property
    def topics(self) -> Sequence[Topic]:
        """Return what it publishes to."""
        return [*(each.topic for each in self.aggregates), self.topic]


class Operations(Generic[W]):
    """An operable service with its database: what every operator's act needs.

    :param on_commit: called after each commit, to wake the relay of the same process
    """

    def __init__(
        self,
        operable: Operable[W],
        settings: ServiceSettings,
        engine: AsyncEngine,
        now: Callable[[], datetime],
        *,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.operable = operable
        self.settings = settings
        self.engine = engine
        self.now = now
        self.on_commit = on_commit
        self.acts = Acts(operable.service, operable.topic, now)

    @asynccontextmanager
    async def act(self) -> AsyncIterator[AsyncConnection]:
        """Open the transaction of what an operator does; at its end commit it, whole."""
        async with self.engine.begin() as connection:
            yield connection
            await failpoint("operations.before-commit")
        await failpoint("operations.after-commit")
        self.on_commit()
