"""The service with its routes, as one of several processes, and the streams that it serves."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import httpx
from joserfc import jwt
from joserfc.jwk import OKPKey
from pydantic import SecretStr
from starlette.responses import JSONResponse

from chassis.correlation import new_id
from chassis.persistence.database import Database
from chassis.testing import FakeRecord
from chassis.web.auth import SIGNING_ALGORITHM, TOKEN_TYPE, AccessToken, Principal
from chassis.web.health import Health
from contracts.accounts import AccountFrozenV1, TransactionCreatedV1
from contracts.envelope import encode
from contracts.events import IntegrationEvent
from contracts.topics import ACCOUNTS_ACCOUNT
from notification_service.agents import stream_subscriber
from notification_service.bootstrap import build
from notification_service.postgres_deliveries import PostgresNotificationWork
from notification_service.settings import NotificationSettings
from notification_service.stream_events import LogForStreams, StreamEvent
from tests.integration.gateway.toys import serving, until

WITHIN_S: Final = 30
_KEY: Final = OKPKey.generate_key("Ed25519", {"kid": "k", "use": "sig", "alg": SIGNING_ALGORITHM})


def now() -> datetime:
    return datetime.now(UTC)


def token_of(user_id: UUID, *, lifetime: timedelta = timedelta(minutes=10)) -> str:
    token = AccessToken(
        id=new_id(), principal=Principal(user_id), issued_at=now(), lifetime=lifetime
    )
    return jwt.encode(
        {"alg": SIGNING_ALGORITHM, "typ": TOKEN_TYPE, "kid": "k"},
        token.claims(issuer="users", audience="onboarding"),
        _KEY,
        algorithms=[SIGNING_ALGORITHM],
    )


def bearer(user_id: UUID) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(user_id)}"}


def transaction_of(
    account_id: UUID, position: int = 2, *, owner: UUID | None = None
) -> TransactionCreatedV1:
    """Return a transaction of an account, which has its owner's id unless it is told."""
    return TransactionCreatedV1(
        transaction_id=new_id(),
        account_id=account_id,
        user_id=owner or account_id,
        position=position,
        kind="deposit",
        currency="USD",
        delta=1230,
        balance_after=1230,
    )


def freezing_of(user_id: UUID) -> AccountFrozenV1:
    return AccountFrozenV1(
        account_id=user_id, user_id=user_id, by=new_id(), reason="an operator's words"
    )


def stored_of(user_id: UUID, data: str) -> StreamEvent:
    return StreamEvent(user_id=user_id, event_id=new_id(), data=data, stored_at=now())


def record_of(event: IntegrationEvent, *, sequence: int = 1, offset: int = 0) -> FakeRecord:
    encoded = encode(
        event,
        id=new_id(),
        source="/accounts",
        subject=str(event.account_id),  # type: ignore[attr-defined]  # each has one
        time=now(),
        sequence=sequence,
        correlationid="c-1",
    )
    return FakeRecord.of(encoded, ACCOUNTS_ACCOUNT.name, offset)


async def consume(database: Database, *records: FakeRecord) -> None:
    """Handle a chunk of records, as a process with agents does."""
    subscriber = stream_subscriber(LogForStreams(now))
    async with database.begin() as connection:
        work = PostgresNotificationWork(connection)
        await subscriber.take(work, connection, records, now)
        await work.flush()


@dataclass(frozen=True, slots=True)
class Running:
    """A process of the service."""

    url: str
    health: Health

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.url, timeout=WITHIN_S) as client:
            yield client


@asynccontextmanager
async def running(database_url: str, **changes: Any) -> AsyncIterator[Running]:
    """Run the service's routes on this database."""

    async def keys(scope: Any, receive: Any, send: Any) -> None:
        published = JSONResponse({"keys": [_KEY.as_dict(private=False)]})
        await published(scope, receive, send)

    async with serving(keys) as keys_url:
        given: dict[str, Any] = {
            "environment": "development",
            "roles": "api",
            "http_port": 0,
            "shutdown_grace_s": 2,
            "database_url": SecretStr(database_url),
            "jwks_url": keys_url,
            "idempotency_secret": SecretStr("s" * 32),
        }
        settings = NotificationSettings(**(given | changes))
        health = Health()
        async with build(settings, health) as parts:
            components = [asyncio.create_task(each.run()) for each in parts.components]
            await until(lambda: all(each.trouble() is None for each in parts.components))
            async with serving(parts.app, settings) as url:
                yield Running(url, health)
                health.set_stopping()
            await asyncio.gather(*(each.stop() for each in parts.components), *components)


@dataclass(frozen=True, slots=True)
class Received:
    """An event as a browser receives it."""

    id: str
    type: str
    data: Any


class Stream:
    """An open stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Received:
        """Wait for the next event; comments are left out."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if line and name:
                    fields[name] = value
                elif "data" in fields:
                    break
        return Received(fields["id"], fields.get("event", "message"), json.loads(fields["data"]))

    async def comment(self) -> str:
        """Wait for the next comment."""
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                if line.startswith(":"):
                    return line
        raise AssertionError("the stream has ended")

    async def rest(self) -> list[str]:
        """Wait for the end, and return the lines before it."""
        async with asyncio.timeout(WITHIN_S):
            return [line async for line in self._lines if line]


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient,
    headers: Mapping[str, str],
    *,
    behind: str | None = None,
    in_query: str | None = None,
) -> AsyncIterator[Stream]:
    """Open a stream with this client."""
    sent = dict(headers) | ({} if behind is None else {"Last-Event-ID": behind})
    query = {} if in_query is None else {"last_event_id": in_query}
    async with client.stream("GET", "/me/stream", headers=sent, params=query) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Stream(answer)
