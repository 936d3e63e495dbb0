"""The open streams of this process: one poll of the log for all of them, at once when woken."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol
from uuid import UUID

import structlog
from fastapi.sse import format_sse_event

from chassis.periodic import LONGEST_IDLE_S, Polling
from chassis.web.event_stream import StreamPlaces, opening
from notification_service.stream_events import Position
from notification_service.stream_log import MOST_AT_ONCE, Read

# Not "open", which is an event of every EventSource itself.
BEGIN: Final = "begin"
READ_AGAIN: Final = "read-again"

# How late an event may be that another process committed.
_POLL_S: Final = 0.2
_DATABASE_RETRY_S: Final = 1.0
# However often it is woken, polling takes a quarter of the time at most.
_REST: Final = 3

_log = structlog.get_logger(__name__)


class Log(Protocol):
    """Where streams are read from: ``StreamLog``."""

    async def last_of(self, user_id: UUID) -> Position: ...
    async def after(self, positions: Sequence[tuple[UUID, Position]]) -> Mapping[int, Read]: ...


class OpenStream:
    """One stream: what was read for it and not sent yet, which is one page at most."""

    def __init__(self, user_id: UUID, position: Position, first: bytes, streams: "Streams") -> None:
        self.user_id = user_id
        #: Behind all that was read for it.
        self.position = position
        self._streams = streams
        self._page: bytes = first
        #: Whether more may be in the log already.
        self._more = True
        self._ready = asyncio.Event()
        self._ready.set()

    @property
    def is_waiting(self) -> bool:
        """Whether all that was read for it was taken to be sent."""
        return not self._ready.is_set()

    def put(self, read: Read) -> None:
        """Keep what follows its position, until it is sent."""
        if read.events:
            self.position = read.events[-1][0]
            self._page = b"".join(
                format_sse_event(id=str(at), data_str=data) for at, data in read.events
            )
        else:
            self.position = read.last
            self._page = format_sse_event(id=str(read.last), event=READ_AGAIN, data_str="{}")
        self._more = len(read.events) == MOST_AT_ONCE
        self._ready.set()

    async def next(self) -> bytes:
        await self._ready.wait()
        self._ready.clear()
        if self._more:
            self._streams.wake()
        return self._page


class Streams(Polling):
    """A component that reads the log for all open streams of this process.

    The log is all that they are sent from, so it does not matter which process committed an event,
    nor whether this one heard of it: that it is woken only makes it read at once. A stream whose
    client is slow is not read for, and so the log is its queue.
    """

    name = "streams"

    def __init__(self, log: Log, places: StreamPlaces) -> None:
        super().__init__()
        self._log = log
        self._places = places
        self._open: set[OpenStream] = set()
        self._rests_until = 0.0
        self._trouble: str | None = None

    def trouble(self) -> str | None:
        return self._trouble

    @asynccontextmanager
    async def open(self, user_id: UUID, last_event_id: str | None) -> AsyncIterator[OpenStream]:
        """Open a stream of a user's events: those behind an id, or those from now on.

        Its first event says where it begins. That is ``read-again`` where it is not at the id,
        because this log never gave it.

        :raises DomainError: there are as many streams as there may be
        :raises Exception: the database can't be read
        """
        with self._places.take(user_id):
            last = await self._log.last_of(user_id)
            position, event = _begin(last_event_id, last)
            first = opening(str(position), event, "{}")
            stream = OpenStream(user_id, position, first, self)
            self._open.add(stream)
            try:
                yield stream
            finally:
                self._open.remove(stream)

    async def step(self, idle_s: float) -> float:
        waiting = [each for each in self._open if each.is_waiting]
        if not waiting:
            return _POLL_S if self._open else LONGEST_IDLE_S
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._rests_until - loop.time()))
        began = loop.time()
        try:
            found = await self._log.after([(each.user_id, each.position) for each in waiting])
        except Exception as error:  # noqa: BLE001 - the streams stay open, and the log keeps all
            self._trouble = f"the database: {type(error).__name__}"
            _log.warning("streams not read", error=type(error).__qualname__)
            return _DATABASE_RETRY_S
        self._trouble = None
        for place, read in found.items():
            waiting[place].put(read)
        self._rests_until = loop.time() + _REST * (loop.time() - began)
        return _POLL_S


def _begin(last_event_id: str | None, last: Position) -> tuple[Position, str]:
    """Return where a stream begins, and the type of its first event."""
    if last_event_id is None:
        return last, BEGIN
    asked = Position.parse(last_event_id)
    if asked is None or asked.epoch != last.epoch or asked.number > last.number:
        return last, READ_AGAIN
    return asked, BEGIN
