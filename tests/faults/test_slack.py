"""Slack refuses, fails or does not answer: each message is posted once, or kept as failed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.e2e.people import Json, poll
from tests.faults.databases import rows
from tests.faults.harness import System
from verification.report import Expected, Report
from verification.verify import verify

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("slack")]

_PEOPLE = 10


@pytest.fixture
async def stand_in(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=system.cluster.url("slack-stand-in")) as client:
        yield client
        await client.delete("/control/faults")


async def fail(stand_in: httpx.AsyncClient, kind: str, **more: Any) -> None:
    """Let the next calls fail."""
    answer = await stand_in.post("/control/faults", json={"kind": kind, **more})
    answer.raise_for_status()


async def sign_up_some(system: System) -> set[str]:
    """Sign some people up; return the names of those who were answered."""
    before = set(system.workload.promised.values())
    await system.workload.sign_up(_PEOPLE)
    return set(system.workload.promised.values()) - before


async def deliveries_of(system: System, names: set[str]) -> list[Any]:
    texts = [f"{name} signed up" for name in names]
    return await rows(
        system,
        "notification",
        "SELECT * FROM deliveries WHERE text = ANY($1)",
        texts,
    )


def are(state: str, system: System, names: set[str]) -> Callable[[], Awaitable[bool]]:
    async def all_are() -> bool:
        found = await deliveries_of(system, names)
        return len(found) == len(names) and all(each["state"] == state for each in found)

    return all_are


async def messages_about(stand_in: httpx.AsyncClient, names: set[str]) -> Counter[str]:
    """Return how many messages there are about each."""
    messages: list[Json] = (await stand_in.get("/messages")).json()["messages"]
    texts = [each["text"].removesuffix(" signed up") for each in messages]
    return Counter(text for text in texts if text in names)


class TestSlack:
    async def test_limits_the_rate_and_is_called_again_after_its_pause(
        self, system: System, stand_in: httpx.AsyncClient
    ) -> None:
        await fail(stand_in, "rate_limited", count=2, retry_after_s=3)
        names = await sign_up_some(system)
        await poll(are("sent", system, names))

        found = await deliveries_of(system, names)
        refused = [each for each in found if each["attempts"] > 1]
        assert await messages_about(stand_in, names) == Counter(names)
        assert refused
        for each in refused:
            assert (each["sent_at"] - each["created_at"]).total_seconds() > 3
        # A message that was refused for certain is not looked for.
        assert not any(each["maybe_repeated"] or each["unsure_since"] for each in found)
        await system.assert_nothing_is_lost()

    async def test_fails_and_is_called_again(
        self, system: System, stand_in: httpx.AsyncClient
    ) -> None:
        await fail(stand_in, "server_error", count=6)
        names = await sign_up_some(system)
        await poll(are("sent", system, names))

        assert await messages_about(stand_in, names) == Counter(names)
        assert any(each["unsure_since"] for each in await deliveries_of(system, names))
        await system.assert_nothing_is_lost()

    async def test_posts_without_an_answer_and_the_message_is_found_and_not_posted_again(
        self, system: System, stand_in: httpx.AsyncClient
    ) -> None:
        await fail(stand_in, "timeout_after_post", count=4)
        names = await sign_up_some(system)
        await poll(are("sent", system, names))

        found = await deliveries_of(system, names)
        assert await messages_about(stand_in, names) == Counter(names)
        assert any(each["unsure_since"] for each in found)
        assert not any(each["maybe_repeated"] for each in found)
        await system.assert_nothing_is_lost()

    async def test_fails_when_the_message_is_looked_for_too(
        self, system: System, stand_in: httpx.AsyncClient
    ) -> None:
        await fail(stand_in, "timeout_after_post", count=2)
        await fail(stand_in, "server_error", count=3, method="conversations.history")
        names = await sign_up_some(system)
        await poll(are("sent", system, names))

        assert await messages_about(stand_in, names) == Counter(names)
        assert not any(each["maybe_repeated"] for each in await deliveries_of(system, names))
        await system.assert_nothing_is_lost()

    async def test_is_stopped_and_started_again(
        self, system: System, stand_in: httpx.AsyncClient
    ) -> None:
        await asyncio.to_thread(system.cluster.stop, "slack-stand-in")
        names = await sign_up_some(system)

        async def is_reported() -> bool:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{system.cluster.url('notification')}/health/ready")
            return answer.status_code == httpx.codes.OK and "chat" in answer.json()["troubles"].get(
                "delivery-worker", ""
            )

        await poll(is_reported)
        await asyncio.to_thread(system.cluster.resume, "slack-stand-in")
        await poll(are("sent", system, names))

        assert await messages_about(stand_in, names) == Counter(names)
        await system.assert_nothing_is_lost()

    @pytest.mark.parametrize("kind", ["channel_not_found", "token_revoked"])
    async def test_refuses_for_good_and_its_error_code_is_kept(
        self, system: System, stand_in: httpx.AsyncClient, kind: str
    ) -> None:
        await fail(stand_in, kind, count=1_000)
        names = await sign_up_some(system)
        await poll(are("failed", system, names))
        await stand_in.delete("/control/faults")
        afterwards = await sign_up_some(system)
        await poll(are("sent", system, afterwards))

        found = await deliveries_of(system, names)
        assert {each["last_error"] for each in found} == {kind}
        assert await messages_about(stand_in, names) == Counter()
        report = await verified(system)
        assert report.holds, report.broken()
        # Failed deliveries are reported unless they are expected.
        assert not (await verified(system, failed_are_expected=False)).holds


async def verified(system: System, *, failed_are_expected: bool = True) -> Report:
    expected = Expected(users=frozenset(system.workload.promised), parked=failed_are_expected)
    return await verify(system.addresses, expected, wait_s=60)
