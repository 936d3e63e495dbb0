"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.agents import Agents
from chassis.auth import TokenVerifier, authenticated, operator
from chassis.clock import utc_now
from chassis.database import pool, trouble_with
from chassis.health import Health
from chassis.http import create_app
from chassis.idempotency import ExpiredKeys, once_for
from chassis.operations.http import operations_routes
from chassis.operations.operable import Operable, Operations
from chassis.process import Component, Running
from chassis.relay import Relay
from chassis.settings import Role
from chassis.trail import new_id
from chassis.transactor import Transactor
from contracts.topics import USERS_OPERATIONS
from users_service.adapters.access_tokens import SignedAccessTokens
from users_service.adapters.argon2_hasher import Argon2Hasher
from users_service.adapters.postgres_repositories import (
    PostgresTasks,
    PostgresUsers,
    PostgresUsersWork,
)
from users_service.adapters.postgres_sign_in_attempts import PostgresSignInAttempts
from users_service.adapters.postgres_views import PostgresViews
from users_service.adapters.signing_keys import SigningKeys
from users_service.application.create_onboarding_tasks import CreateOnboardingTasksHandler
from users_service.application.create_operator import CreateOperator, CreateOperatorHandler
from users_service.application.queries import ProfileOf, TasksOf
from users_service.application.sign_in import SignInHandler, SignInLimits
from users_service.application.sign_up import SignUpHandler
from users_service.domain.errors import UsernameIsTaken
from users_service.domain.user import Role as UserRole
from users_service.domain.values import EmailAddress, Password, Username
from users_service.entrypoints.agents import subscribers
from users_service.entrypoints.client_network import client_network
from users_service.entrypoints.http import UseCases, routes
from users_service.settings import UsersSettings

_SERVICE = "users"
_DESCRIPTION = "People, their passwords and tokens, and their tasks."


def _open_work(connection: AsyncConnection) -> PostgresUsersWork:
    return PostgresUsersWork(connection, utc_now)


def _hasher(settings: UsersSettings) -> Argon2Hasher:
    return Argon2Hasher(
        memory_kib=settings.argon2_memory_kib,
        passes=settings.argon2_passes,
        lanes=settings.argon2_lanes,
        threads=settings.argon2_threads,
    )


def operable(_settings: UsersSettings) -> Operable[PostgresUsersWork]:
    """Return what consumes and what publishes, for those who run it and those who repair it."""
    return Operable(
        service=_SERVICE,
        topic=USERS_OPERATIONS,
        aggregates=[PostgresUsers, PostgresTasks],
        subscribers=subscribers(CreateOnboardingTasksHandler(new_id, utc_now)),
        open_work=_open_work,
    )


@asynccontextmanager
async def build(settings: UsersSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again."""
    async with (
        pool(settings, f"{_SERVICE}-api") as engine,
        pool(settings, f"{_SERVICE}-agents") as agents_engine,
    ):
        hasher = _hasher(settings)
        relay = Relay(settings, service=_SERVICE, now=utc_now)
        transactor = Transactor(engine, _open_work, on_commit=relay.wake)
        views = PostgresViews(engine)

        keys = SigningKeys(
            settings.keys_dir,
            published_ahead=timedelta(seconds=settings.keys_published_ahead_s),
            now=utc_now,
        )
        tokens = SignedAccessTokens(
            keys,
            issuer=settings.access_token_issuer,
            audience=settings.access_token_audience,
            lifetime=timedelta(seconds=settings.access_token_lifetime_s),
        )
        verifier = TokenVerifier.of(settings, utc_now, keys=keys.published)
        use_cases = UseCases(
            sign_up=SignUpHandler(new_id, utc_now),
            sign_in=SignInHandler(
                views=views,
                hasher=hasher,
                tokens=tokens,
                attempts=PostgresSignInAttempts(engine, settings.idempotency_secret),
                limits=SignInLimits(
                    per_name=settings.sign_ins_per_name,
                    per_network=settings.sign_ins_per_network,
                    window=timedelta(seconds=settings.sign_in_window_s),
                ),
                transact=transactor,
                now=utc_now,
            ),
            profile_of=ProfileOf(views),
            tasks_of=TasksOf(views),
        )
        router = routes(
            use_cases,
            hasher=hasher,
            published_keys=keys.published,
            once=once_for(transactor, secret=settings.idempotency_secret, now=utc_now),
            signed_in=authenticated(verifier),
            client_network=client_network(settings.gateway_secret),
        )
        ours = operable(settings)
        operations = Operations(ours, settings, engine, utc_now, on_commit=relay.wake)
        agents = Agents(
            settings,
            service=_SERVICE,
            engine=agents_engine,
            open_work=ours.open_work,
            subscribers=ours.subscribers,
            now=utc_now,
            on_commit=relay.wake,
        )

        components: list[Component] = [ExpiredKeys(engine, utc_now)]
        if settings.serves_routes:
            health.add("database", lambda: trouble_with(engine))
            health.add("signing-keys", keys.trouble)
            components.append(verifier)
        if Role.RELAY in settings.roles:
            components.append(relay)
        if Role.AGENTS in settings.roles:
            components.append(agents)
        app = create_app(
            title="Users",
            description=_DESCRIPTION,
            version="1",
            settings=settings,
            routers=[router, operations_routes(operations, operator(verifier))],
            health=health,
        )
        try:
            yield Running(app, components)
        finally:
            hasher.close()


async def create_operator(
    settings: UsersSettings, username: Username, email: EmailAddress, password: Password
) -> bool:
    """Create an operator; return False if there is one of that name, who stays as they are.

    :raises UsernameIsTaken: by someone who is no operator
    :raises EmailIsTaken: by someone of another name
    """
    hasher = _hasher(settings)
    handler = CreateOperatorHandler(new_id, utc_now)
    try:
        command = CreateOperator(username, email, await hasher.hash(password))
    finally:
        hasher.close()
    async with pool(settings, f"{_SERVICE}-command") as engine:
        try:
            await Transactor(engine, _open_work)(lambda work: handler(work, command))
        except UsernameIsTaken:
            known = await PostgresViews(engine).credentials_of(username)
            if known is None or UserRole.OPERATOR not in known.roles:
                raise
            return False
    return True
