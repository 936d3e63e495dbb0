"""One trace contains the whole journey: from the client's request to the message in Slack."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from accounts_service import bootstrap as accounts
from accounts_service.settings import AccountsSettings
from audit_service import bootstrap as audit
from audit_service.settings import AuditSettings
from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from chassis.migrations import upgrade
from chassis.process.run import ProcessParts
from chassis.web.health import Health
from gateway import bootstrap as gateway
from gateway.settings import GatewaySettings
from local_cluster.testing import RunningInfrastructure, running_infrastructure
from notification_service import bootstrap as notification
from notification_service.settings import NotificationSettings
from notification_service.slack_stand_in import bootstrap as slack_stand_in
from notification_service.slack_stand_in.settings import StandInSettings
from services import FORWARDED
from users_service import bootstrap as users
from users_service.adapters.signing_keys import add_key
from users_service.settings import UsersSettings

SECRET = SecretStr("s" * 32)
AWAY = "http://127.0.0.1:1"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


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


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def whole_system(infrastructure: RunningInfrastructure, keys: Path) -> AsyncIterator[str]:
    """Yield the gateway's address."""
    names = ("users", "accounts", "audit", "notification", "slack", "gateway")
    ports = {name: a_free_port() for name in names}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    jwks_url = f"{urls['users']}/.well-known/jwks.json"

    def common(name: str) -> dict[str, Any]:
        return {
            "http_port": ports[name],
            "database_url": SecretStr(infrastructure.postgres_url(name)),
            "kafka_bootstrap": infrastructure.kafka_bootstrap,
            "idempotency_secret": SECRET,
            "environment": "development",
        }

    async with admin_client(infrastructure.kafka_bootstrap) as client:
        await create_topics(client, brokers=1)
    for name in ("users", "accounts", "audit", "notification"):
        await upgrade(f"{name}_service", infrastructure.postgres_url(name))
    addresses: dict[str, Any] = {
        f"{each.identifier}_url": urls.get(each.name, AWAY) for each in FORWARDED
    }
    building = {
        "slack": slack_stand_in.build(StandInSettings(http_port=ports["slack"]), Health()),
        "users": users.build(
            UsersSettings(
                **common("users"), keys_dir=keys, gateway_secret=SECRET, sign_in_secret=SECRET
            ),
            Health(),
        ),
        "accounts": accounts.build(
            AccountsSettings(**common("accounts"), jwks_url=jwks_url), Health()
        ),
        "audit": audit.build(AuditSettings(**common("audit"), jwks_url=jwks_url), Health()),
        "notification": notification.build(
            NotificationSettings(
                **common("notification"),
                jwks_url=jwks_url,
                slack_base_url=f"{urls['slack']}/api/",
            ),
            Health(),
        ),
        "gateway": gateway.build(
            GatewaySettings(
                http_port=ports["gateway"],
                forward_secret=SECRET,
                **addresses,
            ),
            Health(),
        ),
    }
    async with AsyncExitStack() as running:
        for name, service in building.items():
            await running.enter_async_context(serving(service, ports[name]))
        yield urls["gateway"]


async def test_one_trace_contains_the_whole_journey(
    infrastructure: RunningInfrastructure, spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys", new_id())

    async with (
        whole_system(infrastructure, tmp_path / "keys") as url,
        httpx.AsyncClient(base_url=url, timeout=15) as client,
    ):
        answer = await client.post(
            "/users",
            json={"username": "ada", "email": "ada@example.com", "password": "correct horse"},
            headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"},
        )
        assert answer.status_code == 201, answer.text
        deadline = time.monotonic() + 60
        while missing := STEPS - steps_in(spans.get_finished_spans()):
            assert time.monotonic() < deadline, f"no span of {missing} is in the trace"
            await asyncio.sleep(0.05)


STEPS = {
    "POST /users",
    "accounts.open-account users.user-signed-up.v1",
    "users.create-onboarding-tasks users.user-signed-up.v1",
    "audit.keep",
    "notification.plan-deliveries users.user-signed-up.v1",
    "deliver slack-growth-user-signed-up",
}


def steps_in(finished: tuple[ReadableSpan, ...]) -> set[str]:
    """The names of the spans that belong to the client's trace."""
    return {
        span.name
        for span in finished
        if span.context is not None and f"{span.context.trace_id:032x}" == TRACE_ID
    }
