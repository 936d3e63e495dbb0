"""A timer: what is to be done when a time has come; scheduled and cancelled in a transaction."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from chassis.persistence.transactor import Work

W_contra = TypeVar("W_contra", bound=Work, contravariant=True)
W = TypeVar("W", bound=Work)


class Timer(BaseModel):
    """What is to be done. It is stored as JSON until then, so a new field needs a default.

    :cvar kind: identifies the model in the database, and never changes
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    kind: ClassVar[str]


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that is handled: its id, its aggregate's id, and when it was due, maybe long ago."""

    id: UUID
    subject: UUID
    due_at: datetime


class Timers(Protocol):
    """The timers of a unit of work; what is asked for becomes true when it commits."""

    def schedule(self, at: datetime, what: Timer, /, *, subject: UUID | None = None) -> UUID:
        """Have this handled once, at that time or as soon after it as a worker can.

        The timers of one aggregate are handled in the order of their times, and one that has
        failed holds up the later ones. A time in the past is due at once.

        :param subject: the aggregate's id; None: the timer is about none, and waits for no other
        :return: the timer's id
        """

    async def cancel(self, timer_id: UUID, /) -> bool:
        """Let a timer never be handled; false: it has been handled, or was cancelled before.

        A worker that handles the timer at this moment commits first, and the answer is false, or
        its effects are rolled back. To be called after the aggregate was loaded. The handler of
        this very timer gets false.
        """


class TimerHandler(Protocol[W_contra]):
    """Does what a timer is for, in the transaction that deletes the timer."""

    def __call__(self, work: W_contra, what: Any, due: DueTimer, /) -> Awaitable[None]: ...


TimerHandlers: TypeAlias = Mapping[type[Timer], TimerHandler[W]]
"""The handler of each kind of timer that a service schedules."""


def no_timers(_settings: object) -> TimerHandlers[Any]:
    """Return the handlers of a service that schedules none."""
    return {}


Handle: TypeAlias = Callable[[W], Awaitable[None]]
"""Handles one timer in a unit of work."""
