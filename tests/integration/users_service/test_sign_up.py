import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import func, select

from chassis.persistence.database import Database
from chassis.persistence.tables import outbox
from chassis.web.health import Health
from users_service.adapters.tables import users
from users_service.bootstrap import build
from users_service.settings import UsersSettings

AT_ONCE = 20


@pytest.fixture
async def client(settings: UsersSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with build(settings, Health()) as running:
        transport = httpx.ASGITransport(running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://users") as client:
            yield client


async def sign_up(
    client: httpx.AsyncClient, username: str, email: str, key: str | None = None
) -> httpx.Response:
    body = {"username": username, "email": email, "password": "correct horse"}
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post("/users", json=body, headers=headers)


def codes(answers: list[httpx.Response]) -> Counter[str]:
    return Counter(answer.json().get("code", str(answer.status_code)) for answer in answers)


async def stored(engine: Database) -> tuple[int, int]:
    """Return how many users and how many events there are."""
    async with engine.connect() as connection:
        people = await connection.scalar(select(func.count()).select_from(users))
        events = await connection.scalar(select(func.count()).select_from(outbox))
    return people or 0, events or 0


class TestConcurrentSignUps:
    async def test_one_of_many_requests_for_a_username_succeeds(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        answers = await asyncio.gather(
            *(sign_up(client, "kate", f"k{n}@example.com") for n in range(AT_ONCE))
        )

        assert codes(answers) == {"201": 1, "username-is-taken": AT_ONCE - 1}
        assert await stored(engine) == (1, 1)

    async def test_one_of_many_requests_for_an_email_address_succeeds(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        answers = await asyncio.gather(
            *(sign_up(client, f"kate-{n}", "kate@example.com") for n in range(AT_ONCE))
        )

        assert codes(answers) == {"201": 1, "email-is-taken": AT_ONCE - 1}
        assert await stored(engine) == (1, 1)

    async def test_all_requests_with_different_names_succeed(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        answers = await asyncio.gather(
            *(sign_up(client, f"kate-{n}", f"k{n}@example.com") for n in range(3 * AT_ONCE))
        )

        assert codes(answers) == {"201": 3 * AT_ONCE}
        assert await stored(engine) == (3 * AT_ONCE, 3 * AT_ONCE)

    async def test_one_request_sent_many_times_is_done_once(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        answers = await asyncio.gather(
            *(sign_up(client, "kate", "kate@example.com", key="k1") for _ in range(AT_ONCE))
        )

        assert codes(answers) == {"201": AT_ONCE}
        assert len({answer.headers["Location"] for answer in answers}) == 1
        assert await stored(engine) == (1, 1)


class TestConcurrentSignIns:
    async def test_no_more_passwords_are_verified_than_may_fail(
        self, client: httpx.AsyncClient
    ) -> None:
        form = {"username": "kate", "password": "wrong horse"}

        answers = await asyncio.gather(
            *(client.post("/auth/token", data=form) for _ in range(2 * AT_ONCE))
        )

        assert codes(answers) == {"wrong-credentials": 10, "too-many-sign-ins": 2 * AT_ONCE - 10}
