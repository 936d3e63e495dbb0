"""Sign in: exchange a name and a password for a token. Failed attempts are limited."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chassis.persistence.transactor import Transact
from users_service.application.ports import (
    AccessTokens,
    Attempts,
    Credentials,
    IssuedToken,
    KnownNetworks,
    Network,
    PasswordHasher,
    PerNetwork,
    RecentAttempts,
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

WhileAsked = Callable[[Awaitable[bool]], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class SignIn:
    """``name`` is a username or an e-mail address, ``network`` is where the attempt comes from."""

    name: str = field(repr=False)
    password: Password
    network: Network


@dataclass(frozen=True, slots=True)
class SignInLimits:
    """How many sign-ins may fail within a window; an unfinished one counts as failed.

    :ivar per_name: for one name from one network
    :ivar per_name_everywhere: for one name from all networks together. It is much larger, so that
        it takes many networks to keep someone out; and it does not hold in a network from which
        this name signed in lately (OWASP's device cookies are like it)
    :ivar at_once: how many passwords of one network are verified or wait for that, right ones too
    """

    per_name: int
    per_name_everywhere: int
    per_network: PerNetwork
    at_once: PerNetwork
    window: timedelta


class SignInHandler:
    """Answers an unknown name and a wrong password alike, after the same work."""

    def __init__(
        self,
        *,
        views: Views,
        hasher: PasswordHasher,
        tokens: AccessTokens,
        attempts: RecentAttempts,
        known_networks: KnownNetworks,
        limits: SignInLimits,
        transact: Transact[UsersWork],
        now: Callable[[], datetime],
    ) -> None:
        self._views = views
        self._hasher = hasher
        self._tokens = tokens
        self._attempts = attempts
        self._known_networks = known_networks
        self._limits = limits
        self._transact = transact
        self._now = now
        self._verifying: Counter[str] = Counter()

    async def __call__(
        self, command: SignIn, while_asked: WhileAsked = lambda verified: verified
    ) -> IssuedToken:
        """Return an access token.

        :param while_asked: waits for the password to be verified, while its client does; all else
            is brief, and costs more to give up than to end
        :raises WrongCredentials: unknown name, wrong password, or deactivated user
        :raises TooManyHashes: too many are signing in; this attempt does not count
        :raises TooManySignIns: too many failed recently, for this name or from this network
        """
        login, network = _login_of(command.name), command.network
        # The network first, so that a network over its limit uses up no attempts of a name.
        per_network = self._limits.per_network.of(network)
        counted = [await self._count(f"network {network.name}", per_network)]
        credentials = await self._views.credentials_of(login) if login is not None else None
        if login is not None:
            # A user's name and address are one, so that the two do not allow twice as many guesses.
            who = _user(credentials) if credentials else f"name {login.value}"
            counted.append(await self._count(f"{who} from {network.name}", self._limits.per_name))
            counted.append(await self._count_everywhere(who, network))

        known = credentials.password_hash if credentials else None
        try:
            with self._one_of(network):
                is_right = await while_asked(self._hasher.verify(command.password, known))
        except TooManyHashes:
            await self._uncount(counted)  # nothing was tried
            raise
        if credentials is None or not is_right or not credentials.active:
            raise WrongCredentials

        await self._uncount(counted)
        await self._known_networks.add(_user(credentials), network.name, now=self._now())
        if self._hasher.is_outdated(credentials.password_hash):
            await self._hash_again(credentials, command.password)
        return self._tokens.issue(credentials.user_id, credentials.roles, self._now())

    @contextmanager
    def _one_of(self, network: Network) -> Iterator[None]:
        """Take one of the places that a network has: someone who signs in right has no other bound.

        :raises TooManyHashes: there is none
        """
        if self._verifying[network.name] >= self._limits.at_once.of(network):
            raise TooManyHashes
        self._verifying[network.name] += 1
        try:
            yield
        finally:
            self._verifying[network.name] -= 1
            if not self._verifying[network.name]:
                del self._verifying[network.name]

    async def _count(self, source: str, limit: int) -> tuple[str, Attempts]:
        now = self._now()
        attempts = await self._attempts.count(source, now=now, window=self._limits.window)
        if attempts.count > limit:
            raise TooManySignIns(attempts.over_in_s(now, self._limits.window))
        return source, attempts

    async def _count_everywhere(self, who: str, network: Network) -> tuple[str, Attempts]:
        now = self._now()
        attempts = await self._attempts.count(who, now=now, window=self._limits.window)
        is_over = attempts.count > self._limits.per_name_everywhere
        if is_over and not await self._known_networks.has(who, network.name, now=now):
            raise TooManySignIns(attempts.over_in_s(now, self._limits.window))
        return who, attempts

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


def _user(credentials: Credentials) -> str:
    return f"user {credentials.user_id}"


def _login_of(name: str) -> Username | EmailAddress | None:
    """Return the name as what it can be; only e-mail addresses have an @."""
    try:
        return EmailAddress.parse(name) if "@" in name else Username.parse(name.strip())
    except InvalidValue:
        return None
