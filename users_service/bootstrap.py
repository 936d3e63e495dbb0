"""Builds the service from its parts; read it from top to bottom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import Final

from chassis.clock import utc_now
from chassis.consuming.subscribers import Subscriber
from chassis.correlation import new_id
from chassis.operations.context import Service
from chassis.persistence.database import Connection, pool
from chassis.persistence.idempotency_keys import ExpiredKeys
from chassis.persistence.transactor import Transactor
from chassis.process.run import ProcessParts
from chassis.process.service import wire
from chassis.web.health import Health
from chassis.web.idempotency import idempotent
from contracts.topics import USERS_OPERATIONS
from users_service.adapters.access_tokens import SignedAccessTokens
from users_service.adapters.argon2_hasher import Argon2Hasher
from users_service.adapters.postgres_recent_attempts import (
    PostgresKnownNetworks,
    PostgresRecentAttempts,
)
from users_service.adapters.postgres_repositories import (
    PostgresTasks,
    PostgresUsers,
    PostgresUsersWork,
)
from users_service.adapters.postgres_views import PostgresViews
from users_service.adapters.signing_keys import SigningKeys
from users_service.application.create_onboarding_tasks import CreateOnboardingTasksHandler
from users_service.application.create_operator import CreateOperatorHandler
from users_service.application.ports import PerNetwork, UsersWork
from users_service.application.sign_in import SignInHandler, SignInLimits
from users_service.application.sign_up import SignUpHandler, SignUpLimit
from users_service.domain.errors import UsernameIsTaken
from users_service.domain.user import Identity
from users_service.domain.user import Role as UserRole
from users_service.domain.values import EmailAddress, Password, Username
from users_service.entrypoints.agents import subscribers
from users_service.entrypoints.client_network import client_network
from users_service.entrypoints.http import routes
from users_service.entrypoints.sign_in_log import SignInLog
from users_service.settings import UsersSettings


def _open_work(connection: Connection) -> PostgresUsersWork:
    return PostgresUsersWork(connection, utc_now)


def _hasher(settings: UsersSettings) -> Argon2Hasher:
    return Argon2Hasher(
        memory_kib=settings.argon2_memory_kib,
        passes=settings.argon2_passes,
        lanes=settings.argon2_lanes,
        threads=settings.argon2_threads,
        waiting=settings.argon2_waiting,
        wait_s=settings.argon2_wait_s,
    )


# So many networks together may have all places of those that wait for a hash.
_NETWORKS_AT_ONCE: Final = 4


def _per_network(settings: UsersSettings, limit: int) -> PerNetwork:
    return PerNetwork(limit, limit * settings.shared_network_times)


def _subscribers(_settings: UsersSettings) -> Sequence[Subscriber[UsersWork]]:
    return subscribers(CreateOnboardingTasksHandler(new_id, utc_now))


SERVICE: Final = Service(
    name="users",
    description="People, their passwords and tokens, and their tasks.",
    package="users_service",
    settings=UsersSettings,
    operations_topic=USERS_OPERATIONS,
    aggregates=[PostgresUsers, PostgresTasks],
    subscribers=_subscribers,
    open_work=_open_work,
)


@asynccontextmanager
async def build(settings: UsersSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Open what the service needs, yield its parts, and close everything at the end."""
    keys = SigningKeys(
        settings.keys_dir,
        published_ahead=timedelta(seconds=settings.keys_published_ahead_s),
        now=utc_now,
    )
    async with wire(SERVICE, settings, health, fetch_keys=keys.published) as wiring:
        if settings.serves_routes:
            health.add("signing-keys", keys.trouble)
        views = PostgresViews(wiring.database)
        attempts = PostgresRecentAttempts(wiring.database, settings.sign_in_secret)
        window = timedelta(seconds=settings.sign_in_window_s)
        tokens = SignedAccessTokens(
            keys,
            issuer=settings.access_token_issuer,
            audience=settings.access_token_audience,
            lifetime=timedelta(seconds=settings.access_token_lifetime_s),
        )
        with closing(_hasher(settings)) as hasher:
            sign_in = SignInHandler(
                views=views,
                hasher=hasher,
                tokens=tokens,
                attempts=attempts,
                known_networks=PostgresKnownNetworks(
                    wiring.database,
                    settings.sign_in_secret,
                    kept=timedelta(days=settings.sign_in_networks_kept_days),
                ),
                limits=SignInLimits(
                    per_name=settings.sign_ins_per_name,
                    per_name_everywhere=settings.sign_ins_per_name_everywhere,
                    per_network=_per_network(settings, settings.sign_ins_per_network),
                    at_once=PerNetwork(
                        max(1, settings.argon2_waiting // _NETWORKS_AT_ONCE),
                        settings.argon2_waiting,
                    ),
                    window=window,
                ),
                transact=wiring.transactor,
                now=utc_now,
            )
            router = routes(
                sign_up=SignUpHandler(new_id, utc_now),
                sign_up_limit=SignUpLimit(
                    attempts,
                    _per_network(settings, settings.sign_ups_per_network),
                    window,
                    utc_now,
                ),
                sign_in=sign_in,
                views=views,
                hasher=hasher,
                published_keys=keys.published,
                once=idempotent(wiring.transactor, secret=settings.idempotency_secret, now=utc_now),
                signed_in=wiring.signed_in,
                client_network=client_network(settings.gateway_secret, settings.shared()),
                sign_in_log=SignInLog(settings.sign_in_secret),
            )
            yield wiring.parts(router, components=[ExpiredKeys(wiring.database, utc_now)])


async def create_operator(
    settings: UsersSettings, username: Username, email: EmailAddress, password: Password
) -> bool:
    """Create an operator; return False, and change nothing, if one has that username already.

    :raises UsernameIsTaken: by a user who is no operator
    :raises EmailIsTaken: by a user with another username
    """
    hasher = _hasher(settings)
    handler = CreateOperatorHandler(new_id, utc_now)
    try:
        identity = Identity(username, email, await hasher.hash(password))
    finally:
        hasher.close()
    async with pool(settings, f"{SERVICE.name}-command") as database:
        try:
            await Transactor(database, _open_work)(lambda work: handler(work, identity))
        except UsernameIsTaken:
            known = await PostgresViews(database).credentials_of(username)
            if known is None or UserRole.OPERATOR not in known.roles:
                raise
            return False
    return True
