"""The clients of the system: people who sign up, and the operator."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from local_cluster.testing import RunningCluster
from services import WITH_DATABASE

Json = dict[str, Any]
T = TypeVar("T")

WITHIN_S = 60.0

SERVICES = (*(service.name for service in WITH_DATABASE), "gateway")


async def poll(
    request: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool] = bool,
    *,
    within_s: float = WITHIN_S,
) -> T:
    """Repeat a request until its answer holds, and return that answer."""
    deadline = time.monotonic() + within_s
    while True:
        answer = await request()
        if holds(answer):
            return answer
        assert time.monotonic() < deadline, f"after {within_s:g} s still: {answer!r}"
        await asyncio.sleep(0.05)


def a_name() -> str:
    return f"u.{secrets.token_hex(5)}"


@dataclass
class Person:
    """Someone who signs up through the gateway."""

    gateway: httpx.AsyncClient
    username: str = field(default_factory=a_name)
    password: str = "correct horse battery"
    id: str = ""

    @property
    def body(self) -> Json:
        return {
            "username": self.username,
            "email": f"{self.username}@example.com",
            "password": self.password,
        }

    async def sign_up(self, **headers: str) -> httpx.Response:
        answer = await self.gateway.post("/users", json=self.body, headers=headers)
        if answer.status_code == httpx.codes.CREATED:
            self.id = answer.json()["id"]
        return answer

    async def sign_in(self) -> dict[str, str]:
        return await token_of(self.gateway, self.username, self.password)


async def token_of(gateway: httpx.AsyncClient, username: str, password: str) -> dict[str, str]:
    form = {"username": username, "password": password}
    answer = await gateway.post("/auth/token", data=form)
    assert answer.status_code == httpx.codes.OK, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def everyone_is_ready(cluster: RunningCluster) -> bool:
    """Whether every service is ready."""
    async with httpx.AsyncClient(timeout=30) as client:
        for name in SERVICES:
            try:
                answer = await client.get(f"{cluster.url(name)}/health/ready")
            except httpx.TransportError:
                return False
            if answer.status_code != httpx.codes.OK:
                return False
    return True


async def slack_messages(cluster: RunningCluster, username: str) -> list[Json]:
    """The messages in Slack about someone."""
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"{cluster.url('slack-stand-in')}/messages")
    messages: list[Json] = answer.json()["messages"]
    return [each for each in messages if username in each["text"]]


@dataclass
class Operator:
    """Someone who may see everything; what only operators may has a listener of its own."""

    gateway: httpx.AsyncClient
    operators_url: str
    headers: dict[str, str]

    @classmethod
    async def signed_in(cls, gateway: httpx.AsyncClient, cluster: RunningCluster) -> "Operator":
        headers = await token_of(gateway, cluster.operator, cluster.operator_password)
        return cls(gateway, cluster.operators_url, headers)

    async def get(self, path: str, **params: Any) -> Json:
        answer = await self.request("GET", path, params=params)
        assert answer.status_code == httpx.codes.OK, answer.text
        body: Json = answer.json()
        return body

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.gateway.request(
            method, f"{self.operators_url}{path}", headers=self.headers, **more
        )

    async def account_of(self, person: Person) -> Json | None:
        answer = await self.gateway.get(f"/users/{person.id}/account", headers=self.headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        assert answer.status_code == httpx.codes.OK, answer.text
        body: Json = answer.json()
        return body

    async def audit_records_of(self, person: Person) -> list[Json]:
        page = await self.get("/audit/events", subject=person.id)
        events: list[Json] = page["events"]
        return events

    async def deliveries_of(self, event_id: str) -> list[Json]:
        page = await self.get("/notifications/deliveries", event_id=event_id)
        deliveries: list[Json] = page["deliveries"]
        return deliveries
