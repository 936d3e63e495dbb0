"""Databases and their logins, made at a real server."""

import asyncio
from collections.abc import Iterator
from urllib.parse import quote, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from chassis.persistence.logins import create_databases
from local_cluster.testing import DatabaseServer

Server = DatabaseServer


@pytest.fixture
def names(postgres_server: Server) -> Iterator[list[str]]:
    """Two names of databases and logins that no other test has."""
    names = [f"shop-{uuid4().hex}", f"bank-{uuid4().hex}"]
    yield names
    for name in names:
        postgres_server.drop_database(name)


def url_of(server: Server, name: str, password: str, database: str | None = None) -> str:
    address = urlsplit(server.superuser_url).netloc.rpartition("@")[2]
    return f"postgresql://{name}:{quote(password, safe='')}@{address}/{database or name}"


async def answer(url: str) -> str:
    try:
        connection = await asyncpg.connect(url)
    except asyncpg.PostgresError as error:
        return type(error).__name__
    await connection.close()
    return "connected"


class TestCreateDatabases:
    async def test_a_login_opens_its_own_database_and_no_other(
        self, postgres_server: Server, names: list[str]
    ) -> None:
        urls = [url_of(postgres_server, name, "p'a@s/s") for name in names]

        made = await create_databases(postgres_server.superuser_url, urls)

        assert made == names
        assert await answer(urls[0]) == "connected"
        for other in (names[1], "postgres"):
            foreign = url_of(postgres_server, names[0], "p'a@s/s", other)
            assert await answer(foreign) == "InsufficientPrivilegeError"

    async def test_again_takes_a_changed_password_and_keeps_what_is_there(
        self, postgres_server: Server, names: list[str]
    ) -> None:
        before, after = (url_of(postgres_server, names[0], each) for each in ("first", "second"))
        await create_databases(postgres_server.superuser_url, [before])
        connection = await asyncpg.connect(before)
        await connection.execute("CREATE TABLE kept ()")
        await connection.close()

        made = await create_databases(postgres_server.superuser_url, [after])

        assert made == []
        assert await answer(before) == "InvalidPasswordError"
        connection = await asyncpg.connect(after)
        assert await connection.fetchval("SELECT count(*) FROM kept") == 0
        await connection.close()

    async def test_at_once_with_others_makes_each_login_once(
        self, postgres_server: Server, names: list[str]
    ) -> None:
        urls = [url_of(postgres_server, name, "secret") for name in names]
        await create_databases(postgres_server.superuser_url, urls)

        made = await asyncio.gather(
            *(create_databases(postgres_server.superuser_url, urls) for _ in range(5))
        )

        assert made == [[]] * 5
        assert await answer(urls[0]) == "connected"
