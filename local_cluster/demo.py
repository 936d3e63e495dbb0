"""Shows the journey of one sign-up, read from the running system as it happens."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from rich.console import Console
from rich.markup import escape

from chassis.web.client import DirectTransport, direct_client
from local_cluster.cluster import Cluster
from local_cluster.errors import ClusterError
from local_cluster.together import together
from local_cluster.topology import OPERATOR

_TOPIC = "users.user"
_WITHIN_S = 20.0
_POLL_EVERY_S = 0.02
_RETRY_EVERY_S = 0.1
_UNAVAILABLE = (
    httpx.codes.BAD_GATEWAY,
    httpx.codes.SERVICE_UNAVAILABLE,
    httpx.codes.GATEWAY_TIMEOUT,
)

Json = dict[str, Any]


class RetryingTransport(DirectTransport):
    """Repeats requests while a process that was killed is started again."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + _WITHIN_S
        while True:
            try:
                answer = await super().handle_async_request(request)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if answer.status_code not in _UNAVAILABLE or time.monotonic() > deadline:
                    return answer
                await answer.aclose()
            await asyncio.sleep(_RETRY_EVERY_S)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running system is reached from this machine.

    :ivar operators: where the gateway serves operators
    :ivar consumers_joined: asks whether every consumer has joined its group
    :ivar notifies: the notification service is one of its services
    """

    gateway: str
    operators: str
    kafka_bootstrap: str
    operator_password: str
    consumers_joined: Callable[[], Awaitable[bool]]
    notifies: bool


def addresses_of(cluster: Cluster) -> Addresses:
    """Return the addresses of a cluster that is up."""
    topology = cluster.topology
    return Addresses(
        gateway=topology.url("gateway"),
        operators=topology.operators_url("gateway"),
        kafka_bootstrap=f"127.0.0.1:{cluster.settings.kafka_port}",
        operator_password=cluster.operator_password_file.read_text(),
        consumers_joined=lambda: _untroubled(map(topology.url, topology.databases)),
        notifies="notification" in topology.databases,
    )


@dataclass(frozen=True, slots=True)
class Journey:
    """One sign-up, and the time of its request.

    :ivar operators_url: where the gateway serves operators
    :ivar steps: what was seen of it, in any order: when (seconds, Unix time), which step, its text
    """

    gateway: httpx.AsyncClient
    operators_url: str
    began_at: float
    steps: list[tuple[float, str, str]] = field(default_factory=list)

    def add_step(self, step: str, at: float, text: str) -> None:
        """Add a step that was done at ``at`` (seconds, Unix time)."""
        self.steps.append((at, step, text))

    def print_steps(self, console: Console) -> None:
        """Print the steps in the order in which they were done, with their times."""
        console.print("[dim]milliseconds from sending the request[/]")
        for at, step, text in sorted(self.steps):
            _print_step(console, at - self.began_at, step, text)


async def show_journey(addresses: Addresses, console: Console) -> None:
    """Sign someone up through the gateway, and print each step with its time.

    The request is timed here, and the record by a consumer of our own. The other times are those
    that the services recorded, read from their APIs.

    :raises ClusterError: a step was not seen in time
    """
    try:
        await _show_journey(addresses, console)
    except httpx.TransportError as error:
        raise ClusterError(f"the gateway does not answer: {type(error).__name__}") from None


async def _show_journey(addresses: Addresses, console: Console) -> None:
    url = addresses.gateway
    async with (
        direct_client(base_url=url, timeout=10, transport=RetryingTransport()) as gateway,
        _records_from_now(addresses.kafka_bootstrap) as consumer,
    ):
        await _wait_for_consumers(addresses)
        operator = await _token(gateway, OPERATOR, addresses.operator_password)
        username, password = f"ada.{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        # Connections are open and the token is there, so only the journey itself is timed.
        console.print(f"\nsigning up [bold]{username}[/] at {url}/users\n")
        journey = Journey(gateway, addresses.operators, time.time())
        answer = await _sign_up(gateway, username, password)
        answered_at = time.time()
        user_id = answer.json()["id"]
        journey.add_step("request answered", answered_at, f"201, {answer.headers['location']}")
        try:
            async with asyncio.timeout(_WITHIN_S):
                event_id = await _outbox_and_kafka(journey, consumer, user_id)
                person = await _token(gateway, username, password)
                steps = [
                    _account(journey, person),
                    _tasks(journey, person),
                    _audit_record(journey, operator, user_id),
                ]
                if addresses.notifies:
                    steps.append(_slack_message(journey, operator, event_id))
                await together(*steps)
        except TimeoutError:
            raise ClusterError(
                f"the missing steps were not seen within {_WITHIN_S:g} s; "
                f"make status and make logs show why"
            ) from None
        finally:
            journey.print_steps(console)
        took_ms = (time.time() - journey.began_at) * 1_000
        console.print(f"\n[green]every step seen after {took_ms:.0f} ms[/]")
        async with AsyncExitStack() as closing:
            browser = None
            if addresses.notifies:
                browser = await closing.enter_async_context(_stream(gateway, person))
            await _move_money(gateway, console, person, browser)
        console.print(f"\nsign in as [bold]{username}[/], password [bold]{password}[/]")


async def _wait_for_consumers(addresses: Addresses) -> None:
    """Wait until the consumers have joined their groups; requests are answered before that.

    The wait has an end: what a missing consumer does not do is missing in the journey.
    """
    deadline = time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline:
        if await addresses.consumers_joined():
            return
        await asyncio.sleep(0.1)


async def _untroubled(urls: Iterable[str]) -> bool:
    """Return whether all of these services answer, and none reports trouble."""
    async with direct_client(timeout=5) as client:
        try:
            answers = [await client.get(f"{url}/health/ready") for url in urls]
        except httpx.TransportError:
            return False
    return not any(answer.json().get("troubles", True) for answer in answers)


@asynccontextmanager
async def _records_from_now(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer without a group, at the present end of the topic."""
    consumer = AIOKafkaConsumer(_TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="none")
    await consumer.start()
    try:
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)  # the end is looked up here, not later
        yield consumer
    finally:
        await consumer.stop()


async def _token(gateway: httpx.AsyncClient, username: str, password: str) -> dict[str, str]:
    """Sign in, and return the ``Authorization`` header."""
    form = {"username": username, "password": password}
    answer = await gateway.post("/auth/token", data=form)
    if not answer.is_success:
        raise ClusterError(f"signing in was answered {answer.status_code}: {answer.text}")
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def _outbox_and_kafka(journey: Journey, consumer: AIOKafkaConsumer, user_id: str) -> str:
    """Print the steps of the record with the user's key; return the event's id."""
    record: ConsumerRecord
    async for record in consumer:
        if record.key == user_id.encode():
            break
    else:
        raise ClusterError("Kafka stopped during the journey")
    seen_at = time.time()
    headers = {name: value.decode() for name, value in record.headers}
    # The relay sets the record's timestamp to the time at which the row was written.
    journey.add_step(
        "outbox", record.timestamp / 1_000, f"{headers['type']}, number {int(headers['sequence'])}"
    )
    journey.add_step(
        "Kafka", seen_at, f"{record.topic}, partition {record.partition}, offset {record.offset}"
    )
    event_id: str = headers["id"]
    return event_id


async def _account(journey: Journey, person: dict[str, str]) -> None:
    account = await _poll(lambda: journey.gateway.get("/users/me/account", headers=person), _body)
    first = account["transactions"][-1]
    journey.add_step(
        "account opened",
        _unix(first["occurred_at"]),
        f"{account['balance']} {account['currency']}, “{first['description']}”",
    )


async def _move_money(
    gateway: httpx.AsyncClient,
    console: Console,
    person: dict[str, str],
    browser: AsyncIterator[Json] | None,
) -> None:
    """Deposit, and transfer a part to someone else, found by name.

    :param browser: what the person's browser is sent, which is to hear of both
    """
    friend = await _friend(gateway)
    account = (await gateway.get("/users/me/account", headers=person)).json()
    deposit = {"kind": "deposit", "amount": "100.00", "description": "First money"}
    transfer = {
        "from_account": account["id"],
        "to_username": friend,
        "amount": "30.00",
        "description": "For lunch",
    }
    console.print(f"\nmoving money, and sharing it with [bold]{friend}[/]\n")
    console.print("[dim]milliseconds from sending each request[/]")
    for name, path, command in (
        ("deposit", f"/accounts/{account['id']}/transactions", deposit),
        ("transfer", "/transfers", transfer),
    ):
        began = time.perf_counter()
        answer = await gateway.post(
            path, json=command, headers=person | {"Idempotency-Key": secrets.token_hex(16)}
        )
        answered = time.perf_counter()
        if answer.status_code != httpx.codes.CREATED:
            raise ClusterError(f"the {name} was answered {answer.status_code}: {answer.text}")
        done = answer.json()
        _print_step(
            console,
            answered - began,
            name,
            f"{done['transaction']['delta']} {done['currency']}, the balance is {done['balance']}",
        )
        if browser is not None:
            told = await _told_of(browser, done["transaction"]["id"])
            shown = f"{told['type']}, delta {told['delta']}, balance_after {told['balance_after']}"
            _print_step(console, time.perf_counter() - began, "browser told", shown)


def _print_step(console: Console, elapsed_s: float, step: str, text: str) -> None:
    console.print(f"{elapsed_s * 1_000:9.1f} ms  [bold]{step:<17}[/] {escape(text)}")


@asynccontextmanager
async def _stream(
    gateway: httpx.AsyncClient, person: dict[str, str]
) -> AsyncIterator[AsyncIterator[Json]]:
    """Open the stream of a person's events, as their browser does, and yield those that come."""
    # It is silent for as long as nothing happens; ``_told_of`` has the bound.
    async with gateway.stream("GET", "/me/stream", headers=person, timeout=None) as answer:
        if answer.status_code != httpx.codes.OK:
            raise ClusterError(f"the stream was answered {answer.status_code}")
        yield _data(answer)


async def _data(stream: httpx.Response) -> AsyncIterator[Json]:
    async for line in stream.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def _told_of(browser: AsyncIterator[Json], transaction_id: str) -> Json:
    """Return the event of a transaction, which the stream sends."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            async for told in browser:
                if told.get("transaction_id") == transaction_id:
                    return told
    except TimeoutError:
        raise ClusterError(f"the stream did not tell of it within {_WITHIN_S:g} s") from None
    raise ClusterError("the stream ended")


async def _sign_up(gateway: httpx.AsyncClient, username: str, password: str) -> httpx.Response:
    person = {"username": username, "email": f"{username}@example.com", "password": password}
    # However often it is sent, the user is signed up once.
    once = {"Idempotency-Key": secrets.token_hex(16)}
    answer = await gateway.post("/users", json=person, headers=once)
    if answer.status_code != httpx.codes.CREATED:
        raise ClusterError(f"the sign-up was answered {answer.status_code}: {answer.text}")
    return answer


async def _friend(gateway: httpx.AsyncClient) -> str:
    """Sign someone else up, wait for the account, and return the username."""
    username, password = f"grace.{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    await _sign_up(gateway, username, password)
    token = await _token(gateway, username, password)
    try:
        async with asyncio.timeout(_WITHIN_S):
            await _poll(lambda: gateway.get("/users/me/account", headers=token), _body)
    except TimeoutError:
        raise ClusterError(f"{username} had no account within {_WITHIN_S:g} s") from None
    return username


async def _tasks(journey: Journey, person: dict[str, str]) -> None:
    tasks = await _poll(
        lambda: journey.gateway.get("/users/me/tasks", headers=person), lambda page: page["tasks"]
    )
    names = "; ".join(task["name"] for task in tasks)
    journey.add_step("tasks created", max(_unix(task["created_at"]) for task in tasks), names)


async def _audit_record(journey: Journey, operator: dict[str, str], user_id: str) -> None:
    records = await _poll(
        lambda: journey.gateway.get(
            f"{journey.operators_url}/audit/events",
            params={"subject": user_id},
            headers=operator,
        ),
        lambda page: page["events"],
    )
    record = records[0]
    journey.add_step(
        "audit record",
        _unix(record["recorded_at"]),
        f"id {record['id']}, SHA-256 {record['sha256'][:16]}…",
    )


async def _slack_message(journey: Journey, operator: dict[str, str], event_id: str) -> None:
    deliveries = await _poll(
        lambda: journey.gateway.get(
            f"{journey.operators_url}/notifications/deliveries",
            params={"event_id": event_id, "state": "sent"},
            headers=operator,
        ),
        lambda page: page["deliveries"],
    )
    delivery = deliveries[0]
    journey.add_step(
        "Slack message", _unix(delivery["sent_at"]), f"#{delivery['address']}: {delivery['text']}"
    )


async def _poll(
    request: Callable[[], Awaitable[httpx.Response]], extract: Callable[[Json], Any]
) -> Any:
    """Repeat a request until ``extract`` finds something in the answer, and return that."""
    while True:
        answer = await request()
        if answer.status_code == httpx.codes.OK and (found := extract(answer.json())):
            return found
        if answer.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            raise ClusterError(f"{answer.request.url.path} was answered {answer.status_code}")
        await asyncio.sleep(_POLL_EVERY_S)


def _body(body: Json) -> Json:
    return body


def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
