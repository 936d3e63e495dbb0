"""Carries out a command once per ``Idempotency-Key``, and gives every repeat the same answer.

As in draft-ietf-httpapi-idempotency-key-header. The answer is stored in the transaction of the
command, with a keyed fingerprint of the request, never the request itself. On a route that anyone
may call another body under the same key is another request.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Generic, Protocol, TypeVar
from urllib.parse import quote

from fastapi import Depends, Header, Request, Response
from pydantic import SecretStr

from chassis.domain import DomainError, Kind
from chassis.persistence import transactor
from chassis.persistence.idempotency_keys import IdempotencyKeys, ScopedKey, StoredAnswer
from chassis.persistence.transactor import Transact
from chassis.settings import values_of
from chassis.web.auth import Principal


class IdempotencyKeyReused(DomainError):
    """The key was used for another request before, which is a mistake of the client."""

    kind, code = Kind.INVALID, "idempotency-key-reused"


class Work(transactor.Work, Protocol):
    """A unit of work that can store an answer with its effects."""

    @property
    def idempotency_keys(self) -> IdempotencyKeys: ...


T = TypeVar("T")
W = TypeVar("W", bound=Work)


class IdempotentCommand(Generic[W]):
    """Carries out the work of a request once per key."""

    def __init__(
        self,
        transact: Transact[W],
        keys: Sequence[ScopedKey],
        fingerprints: Sequence[bytes],
        now: datetime,
    ) -> None:
        self._transact = transact
        self._keys = keys
        self._fingerprints = fingerprints
        self._now = now

    @property
    def has_key(self) -> bool:
        """Whether the client sent a key, so that a repeat changes nothing."""
        return bool(self._keys)

    async def __call__(
        self, body: Callable[[W], Awaitable[T]], answer: Callable[[T], Response]
    ) -> Response:
        """Run ``body`` in a transaction and return its answer, or return the stored answer.

        :param answer: makes the response from the result of ``body``
        :raises IdempotencyKeyReused: the key was used for another request before
        """
        if not self._keys:
            return answer(await self._transact(body))

        async def claim_and_run(work: W) -> Response:
            keys = work.idempotency_keys
            for key in self._keys:
                stored = await keys.claim(key, self._now)
                if stored is not None:
                    return self._repeat(stored)
            response = answer(await body(work))
            if 200 <= response.status_code < 300:
                for key in self._keys:
                    await keys.remember(key, self._to_store(response), self._now)
            return response

        return await self._transact(claim_and_run)

    def _repeat(self, stored: StoredAnswer) -> Response:
        if not any(hmac.compare_digest(stored.body_hmac, each) for each in self._fingerprints):
            raise IdempotencyKeyReused("this Idempotency-Key was used for another request before")
        headers = {**stored.headers, "Idempotency-Replayed": "true"}
        return Response(stored.body, stored.status, headers)

    def _to_store(self, response: Response) -> StoredAnswer:
        headers = {k: v for k, v in response.headers.items() if k != "content-length"}
        return StoredAnswer(
            self._fingerprints[0], response.status_code, headers, bytes(response.body)
        )


async def no_principal() -> None:
    """The principal of a route that anyone may call."""


def idempotent(
    transact: Transact[W],
    *,
    secret: SecretStr,
    now: Callable[[], datetime],
    principal: Callable[..., Awaitable[Principal | None]] = no_principal,
) -> Callable[..., Awaitable[IdempotentCommand[W]]]:
    """Return a dependency that provides the route's :class:`IdempotentCommand`.

    :param secret: key of the fingerprints; a repeat is recognised under each of its values
    :param principal: a dependency that provides the principal, to whom the keys belong; without one
        they belong to whoever sends the same request
    """
    description = "Any unique text: repeats within 24 h are carried out once."
    if principal is no_principal:
        description += " Another body, if only by a space, is another request."

    async def command(
        request: Request,
        caller: Annotated[Principal | None, Depends(principal)],
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                min_length=1,
                max_length=255,
                pattern=r"^[\x21-\x7e]+$",
                description=description,
            ),
        ] = None,
    ) -> IdempotentCommand[W]:
        at = now()
        if idempotency_key is None:
            return IdempotentCommand(transact, (), (), at)
        route = f"{request.method} {request.scope['route'].path}"
        fingerprints = await _fingerprints(request, secret)
        if caller:
            keys = [ScopedKey(str(caller.id), route, idempotency_key)]
        else:
            # While the secret is changed a request has two fingerprints. All processes claim them
            # in one order, so that none waits for one that waits for it.
            names = sorted(f"{each.hex()} {idempotency_key}" for each in fingerprints)
            keys = [ScopedKey("", route, name) for name in names]
        return IdempotentCommand(transact, keys, fingerprints, at)

    return command


async def _fingerprints(request: Request, secret: SecretStr) -> Sequence[bytes]:
    """Return the request's fingerprint under each value of the secret; the first is stored."""
    target = f"{request.method} {quote(request.scope['path'])}?".encode()
    target += request.scope["query_string"] + b"\n"
    body = await request.body()
    return [hmac.digest(each, target + body, "sha256") for each in values_of(secret)]
