"""A database with the service's schema for each test, and a stand-in for Slack."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from chassis import migrations
from chassis.persistence.database import Database
from local_cluster.testing import DatabaseServer

from .stand_in import StandIn, running_stand_in


@pytest.fixture(scope="session")
def _migrated(postgres_server: DatabaseServer) -> Iterator[str]:
    name = f"notification_{uuid4().hex}"
    url = postgres_server.create_database(name)
    asyncio.run(migrations.upgrade("notification_service", url))
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def notification_database(postgres_server: DatabaseServer, _migrated: str) -> Iterator[str]:
    """The URL of a fresh database with the service's schema."""
    name = f"notification_{uuid4().hex}"
    yield postgres_server.create_database(name, _migrated)
    postgres_server.drop_database(name)


@pytest.fixture
async def engine(notification_database: str) -> AsyncIterator[Database]:
    engine = Database(notification_database, pool_size=10, application_name="test")
    yield engine
    await engine.close()


@pytest.fixture
async def slack() -> AsyncIterator[StandIn]:
    """A stand-in for Slack with the channels growth and other."""
    async with running_stand_in() as stand_in:
        yield stand_in
