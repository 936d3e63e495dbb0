"""Sign in: exchange a name and a password for a token. Failed attempts are limited."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chassis.persistence.transactor import Transact
from users_service.application.ports import (
    AccessTokens,
    Attempts,
    Credentials,
    IssuedToken,
    PasswordHasher,
    SignInAttempts,
    UsersWork,
    Views,
)
from users_service.domain.errors import (
    InvalidValue,
    TooManyHashes,
    TooManySignIns,
    WrongCredentials,
)
from users_service.domain.values import EmailAddress, Password, Username


@dataclass(frozen=True, slots=True)
class SignIn:
    """``name`` is a username or an e-mail address, ``network`` is where the attempt comes from."""

    name: str = field(repr=False)
    password: Password
    network: str


@dataclass(frozen=True, slots=True)
class SignInLimits:
    """How many sign-ins may fail within a window; an unfinished one counts as failed."""

    per_name: int
    per_network: int
    window: timedelta


class SignInHandler:
    """Answers an unknown name and a wrong password alike, after the same work."""

    def __init__(
        self,
        *,
        views: Views,
        hasher: PasswordHasher,
        tokens: AccessTokens,
        attempts: SignInAttempts,
        limits: SignInLimits,
        transact: Transact[UsersWork],
        now: Callable[[], datetime],
    ) -> None:
        self._views = views
        self._hasher = hasher
        self._tokens = tokens
        self._attempts = attempts
        self._limits = limits
        self._transact = transact
        self._now = now

    async def __call__(self, command: SignIn) -> IssuedToken:
        """Return an access token.

        :raises WrongCredentials: unknown name, wrong password, or deactivated user
        :raises TooManyHashes: too many are signing in; this attempt does not count
        :raises TooManySignIns: too many failed recently, for this name or from this network
        """
        login = _login_of(command.name)
        # The network first, so that a network over its limit uses up no attempts of a name.
        counted = [await self._count(f"network {command.network}", self._limits.per_network)]
        if login is not None:
            counted.append(await self._count(f"name {login.value}", self._limits.per_name))

        credentials = await self._views.credentials_of(login) if login is not None else None
        known = credentials.password_hash if credentials else None
        try:
            is_right = await self._hasher.verify(command.password, known)
        except TooManyHashes:
            await self._uncount(counted)  # nothing was tried
            raise
        if credentials is None or not is_right or not credentials.active:
            raise WrongCredentials

        await self._uncount(counted)
        if self._hasher.is_outdated(credentials.password_hash):
            await self._hash_again(credentials, command.password)
        return self._tokens.issue(credentials.user_id, credentials.roles, self._now())

    async def _count(self, source: str, limit: int) -> tuple[str, Attempts]:
        now = self._now()
        attempts = await self._attempts.count(source, now=now, window=self._limits.window)
        if attempts.count > limit:
            over_at = attempts.window_began_at + self._limits.window
            raise TooManySignIns((over_at - now).total_seconds())
        return source, attempts

    async def _uncount(self, counted: Iterable[tuple[str, Attempts]]) -> None:
        for source, attempts in counted:
            await self._attempts.uncount(source, attempts)

    async def _hash_again(self, credentials: Credentials, password: Password) -> None:
        try:
            newer = await self._hasher.hash(password)
        except TooManyHashes:
            return  # a later sign-in replaces it

        async def replace(work: UsersWork) -> None:
            user = (await work.users.load([credentials.user_id]))[credentials.user_id]
            user.replace_hash(credentials.password_hash, newer)
            work.users.save(user)

        await self._transact(replace)


def _login_of(name: str) -> Username | EmailAddress | None:
    """Return the name as what it can be; only e-mail addresses have an @."""
    try:
        return EmailAddress.parse(name) if "@" in name else Username.parse(name.strip())
    except InvalidValue:
        return None
