from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from chassis.persistence.database import Database
from chassis.persistence.tables import outbox
from chassis.persistence.transactor import Transact
from chassis.web.health import Health
from tests.unit.users_service.people import a_user
from tests.unit.users_service.ports_suite import store
from users_service.adapters.postgres_views import PostgresViews
from users_service.application.ports import UsersWork
from users_service.bootstrap import build, create_operator
from users_service.domain.errors import EmailIsTaken, UsernameIsTaken
from users_service.domain.user import Role
from users_service.domain.values import EmailAddress, Password, Username
from users_service.settings import UsersSettings

ROOT = Username("root")
ADDRESS = EmailAddress("root@localhost")
PASSWORD = Password.parse("battery staple")


async def reasons(settings: UsersSettings, **changes: Any) -> dict[str, str]:
    """Return why the service is not ready, with these settings changed."""
    health = Health()
    async with build(settings.model_copy(update=changes), health):
        return (await health.readiness()).reasons


class TestReadiness:
    async def test_with_a_key_and_a_database_it_is_ready(self, settings: UsersSettings) -> None:
        assert await reasons(settings) == {}

    async def test_without_a_key_it_is_not_ready(
        self, settings: UsersSettings, tmp_path: Path
    ) -> None:
        assert await reasons(settings, keys_dir=tmp_path / "none") == {
            "signing-keys": "no signing key; rotate-keys makes one"
        }

    async def test_without_its_database_it_is_not_ready(self, settings: UsersSettings) -> None:
        unreachable = SecretStr("postgresql://users@127.0.0.1:1/users")

        assert list(await reasons(settings, database_url=unreachable)) == ["database"]

    async def test_with_a_schema_that_is_older_than_the_code_it_is_not_ready(
        self, settings: UsersSettings, database: str
    ) -> None:
        not_migrated = SecretStr(database)

        assert list(await reasons(settings, database_url=not_migrated)) == ["schema"]


class TestCreateOperator:
    async def test_an_existing_operator_is_not_changed(
        self, settings: UsersSettings, engine: Database
    ) -> None:
        views = PostgresViews(engine)
        created = await create_operator(settings, ROOT, ADDRESS, PASSWORD)
        first = await views.credentials_of(ROOT)

        again = await create_operator(settings, ROOT, ADDRESS, Password.parse("another one"))

        assert (created, again) == (True, False)
        assert first is not None
        assert first.roles == {Role.OPERATOR}
        assert await views.credentials_of(ROOT) == first

    async def test_a_user_of_that_name_or_address_does_not_become_an_operator(
        self, settings: UsersSettings, transact: Transact[UsersWork]
    ) -> None:
        await store(transact, a_user("root", email="other@localhost"))
        with pytest.raises(UsernameIsTaken):
            await create_operator(settings, ROOT, ADDRESS, PASSWORD)

        await store(transact, a_user("other", email=ADDRESS.value))
        with pytest.raises(EmailIsTaken):
            await create_operator(settings, Username("root-2"), ADDRESS, PASSWORD)

    async def test_nothing_is_published(self, settings: UsersSettings, engine: Database) -> None:
        await create_operator(settings, ROOT, ADDRESS, PASSWORD)

        async with engine.connect() as connection:
            assert await connection.scalar(select(func.count()).select_from(outbox)) == 0
