"""Clients that repeat a command without an answer, and remember each answer."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import httpx

from tests.e2e.people import Person

_ANSWER_WITHIN_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
_MAX_AT_ONCE: Final = 40
# The share that disconnects early, perhaps during its command, and never repeats it.
_IMPATIENT: Final = 0.1
_DISCONNECT_WITHIN_S: Final = 0.05
# The share that repeats its command although it was answered.
_FORGETFUL: Final = 0.05


class Workload:
    """Sign-ups through the gateway, each under an ``Idempotency-Key`` of its own."""

    def __init__(self, gateway_url: str, *, seed: int = 0, give_up_after_s: float = 120.0) -> None:
        self._gateway_url = gateway_url
        self._random = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
        self._give_up_after_s = give_up_after_s
        #: Ids and names of those whose sign-up was answered with 201.
        self.promised: dict[UUID, str] = {}
        #: Names of those without an answer: their sign-up is complete, or absent.
        self.cut_off: set[str] = set()
        #: Answers that no client should get.
        self.wrong: list[str] = []
        #: How long each answered command took, repeats included, in seconds.
        self.latencies_s: list[float] = []
        self.repeated = 0
        self._id_of: dict[str, UUID] = {}
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def at(self, per_second: float) -> AsyncIterator[None]:
        """Send so many commands a second while the block runs; wait for the last answers."""
        async with self._client() as client:
            sending = asyncio.create_task(self._send(client, per_second))
            try:
                yield
            finally:
                sending.cancel()
                await asyncio.wait([sending])
                await asyncio.gather(*self._open)

    async def sign_up(self, count: int) -> None:
        """Send so many commands at once, and wait until they are answered."""
        async with self._client() as client:
            await asyncio.gather(*(self._command(client) for _ in range(count)))

    def compared(self, users: Mapping[UUID, str]) -> list[str]:
        """Return how the users in the database differ from those who were answered or cut off."""
        known = set(self.promised.values()) | self.cut_off
        strangers = [f"no client signed up {name}" for name in users.values() if name not in known]
        others = [
            f"{id_} was answered as {name}, but is {users[id_]}"
            for id_, name in self.promised.items()
            if id_ in users and users[id_] != name
        ]
        return strangers + others

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._gateway_url,
            timeout=_ANSWER_WITHIN_S,
            limits=httpx.Limits(max_connections=_MAX_AT_ONCE),
        )

    async def _send(self, client: httpx.AsyncClient, per_second: float) -> None:
        at = time.monotonic()
        while True:
            if len(self._open) < _MAX_AT_ONCE:
                task = asyncio.create_task(self._command(client))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
            at = max(at + 1 / per_second, time.monotonic())
            await asyncio.sleep(at - time.monotonic())

    async def _command(self, client: httpx.AsyncClient) -> None:
        person = Person(client)
        if self._random.random() < _IMPATIENT:
            await self._disconnect_early(person)
            return
        began, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while not await self._is_answered(person):
            if time.monotonic() - began > self._give_up_after_s:
                self.cut_off.add(person.username)
                return
            self.repeated += 1
            await asyncio.sleep(self._random.uniform(pause_s / 2, pause_s))
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
        self.latencies_s.append(time.monotonic() - began)
        if self._random.random() < _FORGETFUL:
            await self._is_answered(person)

    async def _disconnect_early(self, person: Person) -> None:
        self.cut_off.add(person.username)
        try:
            async with asyncio.timeout(self._random.uniform(0, _DISCONNECT_WITHIN_S)):
                if await self._is_answered(person):
                    self.cut_off.discard(person.username)
        except TimeoutError:
            return

    async def _is_answered(self, person: Person) -> bool:
        """Send the command; return whether it was answered, so that it need not be repeated."""
        try:
            answer = await person.sign_up(**{"Idempotency-Key": person.username})
        except httpx.TransportError:
            return False
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            return False
        if answer.status_code != httpx.codes.CREATED:
            self.wrong.append(f"{person.username}: {answer.status_code} {answer.text[:200]}")
            return True
        id_, before = UUID(person.id), self._id_of.setdefault(person.username, UUID(person.id))
        if id_ != before:
            self.wrong.append(f"{person.username}: answered with {before}, then with {id_}")
        self.promised[id_] = person.username
        return True
