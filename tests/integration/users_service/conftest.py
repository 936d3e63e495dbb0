"""The users service's schema, migrated once for each process that runs tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from chassis import migrations
from chassis.correlation import new_id
from chassis.persistence.database import Database
from chassis.persistence.transactor import Transact, Transactor
from local_cluster.testing import DatabaseServer
from tests.unit.users_service.people import NOW
from users_service.adapters.postgres_repositories import PostgresUsersWork
from users_service.adapters.signing_keys import add_key
from users_service.application.ports import UsersWork
from users_service.settings import UsersSettings


@pytest.fixture(scope="session")
def migrated_template(postgres_server: DatabaseServer) -> Iterator[str]:
    name = f"users_{uuid4().hex}"
    url = postgres_server.create_database(name)
    asyncio.run(migrations.upgrade("users_service", url))
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def users_database(postgres_server: DatabaseServer, migrated_template: str) -> Iterator[str]:
    """The URL of a fresh database with the service's schema."""
    name = f"test_{uuid4().hex}"
    yield postgres_server.create_database(name, migrated_template)
    postgres_server.drop_database(name)


@pytest.fixture
async def engine(users_database: str) -> AsyncIterator[Database]:
    engine = Database(users_database, pool_size=20, application_name="test")
    yield engine
    await engine.close()


@pytest.fixture
def transact(engine: Database) -> Transact[UsersWork]:
    return Transactor(engine, lambda connection: PostgresUsersWork(connection, lambda: NOW))


@pytest.fixture
def settings(users_database: str, tmp_path: Path) -> UsersSettings:
    """Settings with a signing key and a quick hash; Kafka is unreachable."""
    add_key(tmp_path / "keys", new_id())
    return UsersSettings(
        http_port=0,
        database_url=SecretStr(users_database),
        database_pool_size=20,
        kafka_bootstrap="127.0.0.1:1",
        environment="development",
        idempotency_secret=SecretStr("s" * 32),
        gateway_secret=SecretStr("g" * 32),
        sign_in_secret=SecretStr("i" * 32),
        keys_dir=tmp_path / "keys",
        argon2_memory_kib=64,
        argon2_passes=1,
    )


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    (tmp_path / "password").write_text("battery staple\n")
    return str(tmp_path / "password")
