"""Authenticates requests: access tokens of the users service, verified by its published keys."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

import structlog
from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel

from chassis.domain import DomainError, Kind
from chassis.periodic import Periodic
from chassis.settings import ServiceSettings, TokenReaderSettings
from chassis.web.client import direct_client
from chassis.web.problems import TemporarilyUnavailable
from chassis.web.security_log import (
    ids_in,
    log_operator,
    log_refused,
    names_another,
    reads_people,
    route_of,
)

# RFC 9864's name of EdDSA over Ed25519; "EdDSA" does not name the curve and is deprecated.
SIGNING_ALGORITHM: Final = "Ed25519"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - RFC 9068's media type of an access token
OPERATOR: Final = "operator"
LEEWAY_S: Final = 5

_REFRESH_S: Final = 60.0
_RETRY_S: Final = 1.0
_UNKNOWN_KEY_PAUSE_S: Final = 2.0
_FETCH_TIMEOUT_S: Final = 2.0
_MAX_TOKEN_CHARS: Final = 4096

FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]
RecordRead = Callable[[UUID, str, Sequence[str]], Awaitable[None]]
"""Records that an operator asks for data of other people: who, by which route, and of which ids."""

_log = structlog.get_logger(__name__)
bearer_token: Final = OAuth2PasswordBearer(
    tokenUrl="/auth/token",
    auto_error=False,
    description="Username (or e-mail address) and password of someone who has signed up. Leave"
    " client_id and client_secret empty.",
)


@dataclass(frozen=True, slots=True)
class Principal:
    """A user who is authenticated; ``valid_until`` is when their token expires."""

    id: UUID
    roles: frozenset[str] = frozenset()
    valid_until: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The content of an access token, for the issuer and the verifiers (RFC 9068)."""

    id: UUID
    principal: Principal
    issued_at: datetime
    lifetime: timedelta

    def claims(self, *, issuer: str, audience: str) -> dict[str, Any]:
        """Return the claims to sign with ``SIGNING_ALGORITHM``, under ``typ`` ``TOKEN_TYPE``."""
        return {
            "iss": issuer,
            "aud": audience,
            "sub": str(self.principal.id),
            "iat": int(self.issued_at.timestamp()),
            "exp": int((self.issued_at + self.lifetime).timestamp()),
            "jti": str(self.id),
            "roles": sorted(self.principal.roles),
        }


class NotAuthenticated(DomainError):
    """The request has no access token, or none that is valid here."""

    kind, code = Kind.UNAUTHENTICATED, "not-authenticated"


class TokenExpired(NotAuthenticated):
    code: ClassVar[str] = "token-expired"


class OperatorsOnly(DomainError):
    kind, code = Kind.FORBIDDEN, "operators-only"


def keys_at(settings: TokenReaderSettings) -> FetchKeys:
    """Return a function that fetches the JSON Web Key Set published at ``jwks_url``."""
    verified = ssl.create_default_context(cafile=settings.http_ca_file)

    async def fetch() -> Mapping[str, Any]:
        async with direct_client(timeout=_FETCH_TIMEOUT_S, verify=verified) as client:
            response = await client.get(settings.jwks_url)
            response.raise_for_status()
            body: Mapping[str, Any] = response.json()
            return body

    return fetch


class TokenVerifier(Periodic):
    """Verifies access tokens; a component that fetches the issuer's keys every minute.

    The keys last fetched are used while the issuer is away, but no longer than a token is valid:
    an issuer that was away for so long may have withdrawn them. A token under an unknown key makes
    it fetch them again, at most once in 2 s, so that a rotation needs no restart.

    :param lifetime: how long a token is valid
    :param monotonic: seconds from any beginning, which are never set back
    """

    name = "access-token-keys"
    gates_readiness = True

    def __init__(
        self,
        fetch: FetchKeys,
        *,
        issuer: str,
        audience: str,
        lifetime: timedelta,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._now = now
        self._monotonic = monotonic
        self._lifetime_s = lifetime.total_seconds()
        self._keys: KeySet | None = None
        self._confirmed_at = float("-inf")
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(self._now().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            iat={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        )

    @classmethod
    def of(
        cls, settings: ServiceSettings, now: Callable[[], datetime], *, keys: FetchKeys
    ) -> "TokenVerifier":
        """Return a verifier with these keys, and the issuer and audience of the settings."""
        return cls(
            keys,
            issuer=settings.access_token_issuer,
            audience=settings.access_token_audience,
            lifetime=timedelta(seconds=settings.access_token_lifetime_s),
            now=now,
        )

    async def step(self) -> float:
        await self._refresh()
        return _RETRY_S if self._confirmed() is None else _REFRESH_S

    def trouble(self) -> str | None:
        if self._keys is None:
            return "no keys"
        if self._confirmed() is None:
            return f"keys not confirmed for {self._lifetime_s:g} s"
        return None

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token.

        :raises NotAuthenticated: it is not valid here
        :raises TokenExpired: it was valid
        :raises TemporarilyUnavailable: there are no keys, or none that were confirmed lately
        """
        if len(token) > _MAX_TOKEN_CHARS:
            raise NotAuthenticated("the access token is too long")
        try:
            decoded = await self._decode(token)
            if decoded.header.get("typ") != TOKEN_TYPE:
                raise NotAuthenticated("this is no access token")
            self._claims.validate(decoded.claims)
            return _Claims.model_validate(decoded.claims).principal()
        except ExpiredTokenError as error:
            raise TokenExpired("the access token has expired") from error
        except (JoseError, ValueError) as error:
            raise NotAuthenticated("the access token is not valid here") from error

    async def _decode(self, token: str) -> jwt.Token:
        keys = self._confirmed()
        if keys is None:
            raise TemporarilyUnavailable("access tokens cannot be verified now; try again shortly")
        try:
            return jwt.decode(token, keys, algorithms=[SIGNING_ALGORITHM])
        except InvalidKeyIdError:
            newer = await self._newer_than(keys)
            return jwt.decode(token, newer, algorithms=[SIGNING_ALGORITHM])

    def _confirmed(self) -> KeySet | None:
        """Return the keys, unless the issuer last confirmed them longer ago than a token lives."""
        unconfirmed_s = self._monotonic() - self._confirmed_at
        return self._keys if unconfirmed_s <= self._lifetime_s else None

    async def _newer_than(self, known: KeySet) -> KeySet:
        """Fetch the keys again, unless they were just fetched."""
        async with self._fetching:
            elapsed_s = self._monotonic() - self._fetched_at
            if self._keys is known and elapsed_s > _UNKNOWN_KEY_PAUSE_S:
                await self._refresh()
        return self._keys or known

    async def _refresh(self) -> None:
        asked_at = self._monotonic()
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S):
                published = await self._fetch()
            keys = list(published["keys"])
            self._keys = KeySet.import_key_set({"keys": keys}) if keys else None
            self._confirmed_at = asked_at
        except Exception as error:  # noqa: BLE001 - whatever it is, it confirms no key
            _log.warning("access token keys not fetched", error=type(error).__qualname__)
        finally:
            self._fetched_at = self._monotonic()


class _Claims(BaseModel):
    """The part of a token's claims that the principal is made of."""

    sub: UUID
    roles: list[str]
    exp: float

    def principal(self) -> Principal:
        valid_until = datetime.fromtimestamp(self.exp, UTC)
        return Principal(self.sub, frozenset(self.roles), valid_until)


def authenticated(
    verifier: TokenVerifier, record_read: RecordRead, *, cookie: str | None = None
) -> Callable[..., Awaitable[Principal]]:
    """Return a dependency that provides the principal, or answers 401.

    :param cookie: has the access token of a request without ``Authorization``

    Whatever an operator asks for is in the security log, and so is what is refused. Where the path
    names another than the operator, what they read is recorded before they are answered.
    """

    async def principal(
        request: Request, caller: Annotated[Principal, Depends(_caller(verifier, cookie))]
    ) -> Principal:
        if OPERATOR in caller.roles and names_another(request, caller.id):
            await _record_if_it_reads(record_read, request, caller)
        return caller

    return principal


def operator(
    verifier: TokenVerifier, record_read: RecordRead
) -> Callable[..., Awaitable[Principal]]:
    """Return a dependency that provides an operator, or answers 401 or 403.

    What they read is recorded before they are answered.
    """

    async def principal(
        request: Request, caller: Annotated[Principal, Depends(_caller(verifier))]
    ) -> Principal:
        if OPERATOR not in caller.roles:
            log_refused(request, OperatorsOnly.code, caller.id)
            raise OperatorsOnly("only operators may do this")
        await _record_if_it_reads(record_read, request, caller)
        return caller

    return principal


def _caller(
    verifier: TokenVerifier, cookie: str | None = None
) -> Callable[..., Awaitable[Principal]]:
    async def principal(
        request: Request, token: Annotated[str | None, Depends(bearer_token)]
    ) -> Principal:
        if token is None and cookie is not None:
            token = request.cookies.get(cookie)
        try:
            caller = await _verified(verifier, token)
        except NotAuthenticated as refused:
            log_refused(request, refused.code)
            raise
        if OPERATOR in caller.roles:
            log_operator(request, caller.id)
        return caller

    return principal


async def _verified(verifier: TokenVerifier, token: str | None) -> Principal:
    if token is None:
        raise NotAuthenticated("an access token is needed")
    return await verifier.verify(token)


async def _record_if_it_reads(record: RecordRead, request: Request, caller: Principal) -> None:
    if reads_people(request):
        await record(caller.id, route_of(request), ids_in(request))
