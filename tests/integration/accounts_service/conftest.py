"""The accounts service's schema, migrated once for each process that runs tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from chassis import migrations
from chassis.persistence.database import Database
from local_cluster.testing import DatabaseServer


@pytest.fixture(scope="session")
def migrated_template(postgres_server: DatabaseServer) -> Iterator[str]:
    name = f"accounts_{uuid4().hex}"
    url = postgres_server.create_database(name)
    asyncio.run(migrations.upgrade("accounts_service", url))
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def accounts_database(postgres_server: DatabaseServer, migrated_template: str) -> Iterator[str]:
    """The URL of a fresh database with the service's schema."""
    name = f"test_{uuid4().hex}"
    yield postgres_server.create_database(name, migrated_template)
    postgres_server.drop_database(name)


@pytest.fixture
async def engine(accounts_database: str) -> AsyncIterator[Database]:
    engine = Database(accounts_database, pool_size=5, application_name="test")
    yield engine
    await engine.close()
