"""Follows sign-ups to their last effect, at little cost to the measured processes.

It needs one query per database, whatever the number of sign-ups. The stand-in for Slack appends
each message to a file before it answers, and only the new end of that file is read.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

EFFECTS: Final = ("account", "tasks", "audit", "slack")

_LOOKS: Final = {
    "account": ("accounts", "SELECT user_id FROM accounts WHERE user_id = ANY ($1::uuid[])"),
    "tasks": (
        "users",
        """
        SELECT assignee_id FROM tasks WHERE assignee_id = ANY ($1::uuid[])
        GROUP BY assignee_id HAVING count(*) = 2
        """,
    ),
    "audit": (
        "audit",
        "SELECT subject::uuid FROM records WHERE subject = ANY ($1::uuid[]::text[])",
    ),
}


@dataclass
class Journey:
    """A sign-up, and when each of its effects was first seen, by one monotonic clock."""

    username: str
    began_at_s: float
    answered_at_s: float = 0.0
    seen_at_s: dict[str, float] = field(default_factory=dict)
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, effect: str) -> None:
        self.seen_at_s[effect] = time.monotonic()
        if len(self.seen_at_s) == len(EFFECTS):
            self.whole.set()

    def took_ms(self, effect: str | None = None) -> float:
        """Return the time from sending to an effect, or to the last one."""
        until_s = self.seen_at_s[effect] if effect else max(self.seen_at_s.values())
        return (until_s - self.began_at_s) * 1_000


class Following:
    """Looks for the missing effects of every sign-up that it was given."""

    def __init__(self, slack: Path, every_s: float) -> None:
        self._every_s = every_s
        self._slack = slack
        self._in_slack: dict[str, Journey] = {}
        self._wanted: dict[str, dict[UUID, Journey]] = {effect: {} for effect in _LOOKS}
        self._some: dict[str, asyncio.Event] = {effect: asyncio.Event() for effect in EFFECTS}

    @property
    def under_way(self) -> int:
        """The number of sign-ups with a missing effect."""
        return max(len(self._in_slack), *map(len, self._wanted.values()))

    def began(self, journey: Journey) -> None:
        """Look for its message; the other effects are looked for once its id is known."""
        self._in_slack[journey.username] = journey
        self._some["slack"].set()

    def answered(self, journey: Journey, id_: UUID) -> None:
        journey.answered_at_s = time.monotonic()
        for effect, wanted in self._wanted.items():
            wanted[id_] = journey
            self._some[effect].set()

    async def look_into_database(self, effect: str, url: str) -> None:
        wanted, some = self._wanted[effect], self._some[effect]
        connection = await asyncpg.connect(url)
        try:
            look = await connection.prepare(_LOOKS[effect][1])
            while True:
                if not wanted:
                    some.clear()
                    await some.wait()
                for [found] in await look.fetch(list(wanted)):
                    wanted.pop(found).saw(effect)
                await asyncio.sleep(self._every_s)
        finally:
            connection.terminate()

    async def look_into_slack(self) -> None:
        some = self._some["slack"]
        with self._slack.open("rb") as messages:
            messages.seek(0, 2)
            rest = b""
            while True:
                if not self._in_slack:
                    some.clear()
                    await some.wait()
                *lines, rest = (rest + messages.read()).split(b"\n")
                for line in lines:
                    username = orjson.loads(line)["text"].partition(" ")[0]
                    if journey := self._in_slack.pop(username, None):
                        journey.saw("slack")
                await asyncio.sleep(self._every_s)


@asynccontextmanager
async def following(
    databases: Mapping[str, str], slack: Path, *, every_s: float = 0.001
) -> AsyncIterator[Following]:
    """Follow sign-ups while the block runs.

    :param databases: URLs by the service: users, accounts, audit
    :param slack: the file of the stand-in
    """
    it = Following(slack, every_s)
    looks = [it.look_into_database(each, databases[of]) for each, (of, _) in _LOOKS.items()]
    tasks: Sequence[asyncio.Task[Any]] = [
        asyncio.create_task(look) for look in (*looks, it.look_into_slack())
    ]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _tell(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and (error := task.exception()):
        task.get_loop().call_exception_handler(
            {"message": "a look for effects ended", "exception": error, "task": task}
        )
