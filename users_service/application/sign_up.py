"""Sign up: create a user, and publish that they signed up. A limit holds for each network."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from users_service.application.ports import Network, PerNetwork, RecentAttempts, UsersWork
from users_service.domain.errors import TooManyHashes, TooManySignUps
from users_service.domain.user import Identity, User


class SignUpHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: UsersWork, identity: Identity) -> UUID:
        """Return the new user's id.

        :raises UsernameIsTaken: when the work is flushed
        :raises EmailIsTaken: when the work is flushed
        """
        user = User.sign_up(self._new_id(), identity, self._now())
        # No query for the name: the database keeps it unique. A query would make any two
        # concurrent sign-ups conflict.
        work.users.save(user)
        return user.id


@dataclass(frozen=True, slots=True)
class SignUpLimit:
    """Counts the sign-ups from each network, those too that are refused or repeated."""

    attempts: RecentAttempts
    per_network: PerNetwork
    window: timedelta
    now: Callable[[], datetime]

    @asynccontextmanager
    async def one_from(self, network: Network) -> AsyncIterator[None]:
        """Count one more, which does the work of the block.

        :raises TooManySignUps: there were too many before
        """
        now, source = self.now(), f"sign-ups from {network.name}"
        counted = await self.attempts.count(source, now=now, window=self.window)
        if counted.count > self.per_network.of(network):
            raise TooManySignUps(counted.over_in_s(now, self.window))
        try:
            yield
        except TooManyHashes:
            await self.attempts.uncount(source, counted)  # nothing was done
            raise
