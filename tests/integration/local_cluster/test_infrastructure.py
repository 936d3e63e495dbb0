"""Kafka and PostgreSQL as the tests have them."""

import asyncpg
import pytest

from local_cluster.testing import RunningInfrastructure


async def _select(url: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT current_database()")
    finally:
        await connection.close()


class TestADatabasePerTest:
    async def test_it_is_there_and_empty(self, database: str) -> None:
        assert await _select(database) == database.rsplit("/", 1)[1]

    def test_a_template_is_copied(self, postgres_server: RunningInfrastructure) -> None:
        first = postgres_server.create_database("copied_from")
        del first
        postgres_server.create_database("copied_to", template="copied_from")
        postgres_server.drop_database("copied_to")
        postgres_server.drop_database("copied_from")


class TestLogins:
    async def test_a_login_opens_its_own_database(
        self, postgres_server: RunningInfrastructure
    ) -> None:
        assert await _select(postgres_server.postgres_url("users")) == "users"

    @pytest.mark.parametrize("other", ["accounts", "postgres", "template1"])
    async def test_a_login_opens_no_other_database(
        self, postgres_server: RunningInfrastructure, other: str
    ) -> None:
        url = postgres_server.postgres_url("users").rsplit("/", 1)[0]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _select(f"{url}/{other}")

    async def test_nobody_comes_in_without_the_password(
        self, postgres_server: RunningInfrastructure
    ) -> None:
        url = postgres_server.postgres_url("users")
        stranger = url.replace(url.split("@")[0], "postgresql://users:wrong")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _select(stranger)
