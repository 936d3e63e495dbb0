"""A command sent twice under one ``Idempotency-Key`` is done once and answered twice the same.

After draft-ietf-httpapi-idempotency-key-header. The answer is stored in the transaction of the
command, beside a keyed fingerprint of the request, never the request itself.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Annotated, Final, Generic, Protocol, TypeVar
from urllib.parse import quote

import structlog
from fastapi import Depends, Header, Request, Response
from pydantic import SecretStr
from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import tables, transactor
from chassis.auth import Principal
from chassis.domain import DomainError, Kind
from chassis.transactor import Transact

KEEP: Final = timedelta(hours=24)
_UNANSWERED: Final = 0
_PURGE_EVERY_S: Final = 60.0
_PURGE_ROWS: Final = 1_000

_table = tables.idempotency_keys

_log = structlog.get_logger(__name__)


class IdempotencyKeyReused(DomainError):
    """The key was used for another request; the client mixed something up."""

    kind, code = Kind.INVALID, "idempotency-key-reused"


@dataclass(frozen=True, slots=True)
class KeyOf:
    """Whose key, on which route. ``principal`` is empty for nobody."""

    principal: str
    route: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer given before, and the fingerprint of the request it was given to."""

    body_hmac: bytes
    status: int
    headers: dict[str, str]
    body: bytes


class IdempotencyKeys(Protocol):
    """The keys used lately, within one transaction."""

    async def claim(self, key: KeyOf, now: datetime) -> StoredAnswer | None:
        """Take the key for this transaction, or return the success answered under it.

        Waits for another transaction that has the key. To be called first in a transaction.
        """

    async def remember(self, key: KeyOf, answer: StoredAnswer, now: datetime) -> None:
        """Keep the answer given under a claimed key."""


class PostgresIdempotencyKeys:
    """Keys in the table ``idempotency_keys``.

    The claim is an insert, so of two at once the second waits on the first's row. When the
    first commits, the second's snapshot does not see that row: PostgreSQL refuses it as a
    serialization failure, the transactor begins again, and the new snapshot has the answer.
    An advisory lock would be taken under the old snapshot and then find nothing.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self, key: KeyOf, now: datetime) -> StoredAnswer | None:
        unanswered = {"body_hmac": b"", "status": _UNANSWERED, "headers": {}, "body": b""}
        claim = insert(_table).values(**asdict(key), **unanswered, created_at=now)
        taken = await self._connection.execute(
            claim.on_conflict_do_update(
                index_elements=_table.primary_key,
                set_={"created_at": claim.excluded.created_at},
                # Expired, or claimed for a request that was answered with no success.
                where=(_table.c.created_at <= now - KEEP) | (_table.c.status == _UNANSWERED),
            ).returning(_table.c.key)
        )
        if taken.first() is not None:
            return None
        answer = select(*(_table.c[each.name] for each in fields(StoredAnswer)))
        found = await self._connection.execute(answer.filter_by(**asdict(key)))
        return StoredAnswer(*found.one())

    async def remember(self, key: KeyOf, answer: StoredAnswer, now: datetime) -> None:
        # An upsert finds its row through the key alone. An UPDATE would be a scan, and a scan of
        # a small table under SERIALIZABLE conflicts with every other command's claim.
        row = insert(_table).values(**asdict(key), **asdict(answer), created_at=now)
        await self._connection.execute(
            row.on_conflict_do_update(
                index_elements=_table.primary_key,
                set_={each.name: row.excluded[each.name] for each in fields(StoredAnswer)},
            )
        )


class InMemoryIdempotencyKeys:
    """The same, kept in a dictionary; for tests, one transaction at a time."""

    def __init__(self) -> None:
        self._answers: dict[KeyOf, tuple[StoredAnswer, datetime]] = {}

    async def claim(self, key: KeyOf, now: datetime) -> StoredAnswer | None:
        known = self._answers.get(key)
        return known[0] if known and known[1] > now - KEEP else None

    async def remember(self, key: KeyOf, answer: StoredAnswer, now: datetime) -> None:
        self._answers[key] = (answer, now)


class Work(transactor.Work, Protocol):
    """A unit of work that can store an answer beside its effects."""

    @property
    def idempotency_keys(self) -> IdempotencyKeys: ...


T = TypeVar("T")
W = TypeVar("W", bound=Work)


class Once(Generic[W]):
    """Does the work of one request once per key: call it with the work and how to answer it."""

    def __init__(
        self, transact: Transact[W], key: KeyOf | None, fingerprint: bytes, now: datetime
    ) -> None:
        self._transact = transact
        self._key = key
        self._fingerprint = fingerprint
        self._now = now

    async def __call__(
        self, body: Callable[[W], Awaitable[T]], answer: Callable[[T], Response]
    ) -> Response:
        """Run ``body`` in a transaction and answer, or repeat the answer given before.

        :raises IdempotencyKeyReused: the key came with another request before
        """
        key = self._key
        if key is None:
            return answer(await self._transact(body))

        async def claim_and_run(work: W) -> Response:
            keys = work.idempotency_keys
            known = await keys.claim(key, self._now)
            if known is not None:
                return self._repeat(known)
            response = answer(await body(work))
            if 200 <= response.status_code < 300:
                await keys.remember(key, self._to_store(response), self._now)
            return response

        return await self._transact(claim_and_run)

    def _repeat(self, known: StoredAnswer) -> Response:
        if not hmac.compare_digest(known.body_hmac, self._fingerprint):
            raise IdempotencyKeyReused("this Idempotency-Key came with another request before")
        headers = {**known.headers, "Idempotency-Replayed": "true"}
        return Response(known.body, known.status, headers)

    def _to_store(self, response: Response) -> StoredAnswer:
        headers = {k: v for k, v in response.headers.items() if k != "content-length"}
        return StoredAnswer(self._fingerprint, response.status_code, headers, bytes(response.body))


async def nobody() -> None:
    """The principal of a route that anyone may call."""


def once_for(
    transact: Transact[W],
    *,
    secret: SecretStr,
    now: Callable[[], datetime],
    principal: Callable[..., Awaitable[Principal | None]] = nobody,
) -> Callable[..., Awaitable[Once[W]]]:
    """Return a dependency that gives the route a :class:`Once`.

    :param principal: the dependency that says who asks; keys belong to them
    """

    async def once(
        request: Request,
        who: Annotated[Principal | None, Depends(principal)],
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                min_length=1,
                max_length=255,
                pattern=r"^[\x21-\x7e]+$",
                description="Any unique text: the same request under it is done once for 24 h.",
            ),
        ] = None,
    ) -> Once[W]:
        at = now()
        if idempotency_key is None:
            return Once(transact, None, b"", at)
        route = f"{request.method} {request.scope['route'].path}"
        key = KeyOf(str(who.id) if who else "", route, idempotency_key)
        return Once(transact, key, await _fingerprint(request, secret), at)

    return once


async def _fingerprint(request: Request, secret: SecretStr) -> bytes:
    target = f"{request.method} {quote(request.scope['path'])}?".encode()
    target += request.scope["query_string"] + b"\n"
    body = await request.body()
    return hmac.new(secret.get_secret_value().encode(), target + body, hashlib.sha256).digest()


class ExpiredKeys:
    """A component that deletes keys older than 24 h, every minute, a thousand at a time."""

    name = "expired-idempotency-keys"
    gates_readiness = False

    def __init__(self, engine: AsyncEngine, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._now = now
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        while not self._stopped.is_set():
            try:
                while await self.purge() == _PURGE_ROWS and not self._stopped.is_set():
                    continue
            except Exception as error:  # noqa: BLE001 - what is left over is deleted next time
                _log.warning("expired keys not deleted", error=type(error).__qualname__)
            try:
                async with asyncio.timeout(_PURGE_EVERY_S):
                    await self._stopped.wait()
            except TimeoutError:
                continue

    async def purge(self) -> int:
        """Delete up to 1,000 expired keys and return how many they were."""
        # Under the engine's READ COMMITTED: a serializable scan would conflict with every claim.
        key = tuple_(*_table.primary_key)
        expired = (
            select(*_table.primary_key)
            .where(_table.c.created_at <= self._now() - KEEP)
            .order_by(_table.c.created_at)
            .limit(_PURGE_ROWS)
            .with_for_update(skip_locked=True)
        )
        async with self._engine.connect() as connection:
            gone = await connection.execute(delete(_table).where(key.in_(expired)))
            await connection.commit()
            return gone.rowcount

    async def stop(self) -> None:
        self._stopped.set()

    def trouble(self) -> str | None:
        return None
