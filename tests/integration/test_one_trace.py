"""One trace contains the whole journey: from the gateway to the message in Slack."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path

import httpx
import pytest
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from chassis.migrations import upgrade
from chassis.process.run import ProcessParts
from chassis.web.health import Health
from local_cluster.misspelt import settings_of
from local_cluster.testing import RunningInfrastructure, running_infrastructure
from services import SERVICES
from users_service.adapters.signing_keys import add_key

CLIENTS_TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def infrastructure(tmp_path: Path) -> Iterator[RunningInfrastructure]:
    """Kafka and PostgreSQL for this test only: the services' topics and groups have fixed names."""
    with running_infrastructure(tmp_path / "infrastructure") as running:
        yield running


@asynccontextmanager
async def serving(
    building: AbstractAsyncContextManager[ProcessParts], port: int
) -> AsyncIterator[None]:
    """Run a service in this process, and wait until its HTTP server has started."""
    async with building as running:
        server = uvicorn.Server(
            uvicorn.Config(running.app, port=port, log_config=None, lifespan="off")
        )
        tasks = [asyncio.create_task(server.serve())]
        tasks += [asyncio.create_task(each.run()) for each in running.components]
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.gather(*(each.stop() for each in running.components))
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def whole_system(
    infrastructure: RunningInfrastructure, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Run every process of ``services.toml`` in this one, and yield the gateway's address."""
    async with admin_client(infrastructure.kafka_bootstrap) as client:
        await create_topics(client, brokers=1)
    for each in SERVICES:
        for name, value in infrastructure.environment(each.name).items():
            monkeypatch.setenv(name, value)
    add_key(Path(os.environ["USERS_KEYS_DIR"]), new_id())
    async with AsyncExitStack() as running:
        for each in SERVICES:
            if each.database:
                await upgrade(each.package, infrastructure.postgres_url(each.name))
            settings = settings_of(each)()
            build = import_module(f"{each.module}.bootstrap").build
            await running.enter_async_context(
                serving(build(settings, Health()), settings.http_port)
            )
        yield f"http://127.0.0.1:{os.environ['GATEWAY_HTTP_PORT']}"


PERSON = {
    "username": "ada-5e1f",
    "email": "lovelace@example.com",
    "password": "battery staple 7",
}


async def test_one_trace_contains_the_whole_journey_and_nothing_personal(
    infrastructure: RunningInfrastructure,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        whole_system(infrastructure, monkeypatch) as url,
        httpx.AsyncClient(base_url=url, timeout=15) as client,
    ):
        answer = await client.post(
            "/users",
            json=PERSON,
            headers={"traceparent": f"00-{CLIENTS_TRACE_ID}-00f067aa0ba902b7-01"},
        )
        assert answer.status_code == 201, answer.text
        deadline = time.monotonic() + 60
        # The trace begins at the gateway, and links to the client's.
        while missing := STEPS - steps_in(spans.get_finished_spans()):
            assert time.monotonic() < deadline, f"no span of {missing} is in the trace"
            await asyncio.sleep(0.05)
        refused = await client.post("/users", json=PERSON)
        form = {"username": PERSON["email"], "password": PERSON["password"]}
        signed_in = await client.post("/auth/token", data=form)

    assert (refused.status_code, signed_in.status_code) == (409, 200)
    told = "".join(each.to_json() for each in spans.get_finished_spans())
    assert [value for value in PERSON.values() if value in told] == []


STEPS_OF = {
    "gateway": {"POST /users"},
    "accounts": {"accounts.open-account users.user-signed-up"},
    "users": {"users.create-onboarding-tasks users.user-signed-up"},
    "audit": {"audit.keep"},
    "notification": {
        "notification.plan-deliveries users.user-signed-up",
        "deliver slack-growth-user-signed-up",
    },
}
STEPS = {step for each in SERVICES for step in STEPS_OF.get(each.name, ())}


def steps_in(finished: tuple[ReadableSpan, ...]) -> set[str]:
    """Name the spans of the trace that links to the client's, without versions of events."""
    linked = {
        span.context.trace_id
        for span in finished
        if span.context is not None
        and CLIENTS_TRACE_ID in {f"{link.context.trace_id:032x}" for link in span.links}
    }
    return {
        re.sub(r"\.v\d+$", "", span.name)
        for span in finished
        if span.context is not None and span.context.trace_id in linked
    }
