"""The service as its bootstrap builds it, without Kafka and the users service."""

from collections.abc import Sequence

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from accounts_service.bootstrap import build
from accounts_service.settings import AccountsSettings
from chassis.correlation import new_id
from chassis.settings import Role
from chassis.web.health import Health

PARKED = """
    INSERT INTO parked (id, subscriber, topic, topic_id, partition, "offset", headers, reason,
        error_code, error_message, tries, first_tried_at, last_tried_at)
    VALUES (gen_random_uuid(), 'accounts.open-account', 'users.user', gen_random_uuid(), 0, 7, '[]',
        'failed', 'too-odd', 'm', 1, now(), now())
"""


def settings(database: str, *roles: Role) -> AccountsSettings:
    return AccountsSettings(
        http_port=0,
        roles=frozenset(roles),
        database_url=SecretStr(database),
        kafka_bootstrap="127.0.0.1:1",
        jwks_url="http://127.0.0.1:1/jwks.json",
        idempotency_secret=SecretStr("s" * 32),
    )


async def answer(settings: AccountsSettings, path: str) -> httpx.Response:
    async with build(settings, Health()) as running:
        transport = httpx.ASGITransport(running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://accounts") as client:
            return await client.get(path)


class TestRoles:
    @pytest.mark.parametrize(
        ("roles", "parts"),
        [
            ([Role.API], ["expired-idempotency-keys", "access-token-keys", "outbox-age"]),
            ([Role.RELAY], ["expired-idempotency-keys", "relay", "outbox-age"]),
            ([Role.AGENTS], ["expired-idempotency-keys", "agents", "timer-worker", "ledger-check"]),
            (
                [*Role],
                [
                    "expired-idempotency-keys",
                    "access-token-keys",
                    "outbox-age",
                    "relay",
                    "agents",
                    "timer-worker",
                    "ledger-check",
                ],
            ),
        ],
    )
    async def test_a_process_runs_the_parts_of_its_roles(
        self, accounts_database: str, roles: Sequence[Role], parts: Sequence[str]
    ) -> None:
        async with build(settings(accounts_database, *roles), Health()) as running:
            assert [each.name for each in running.components] == parts

    async def test_only_the_role_api_has_routes_and_they_need_a_token(
        self, accounts_database: str
    ) -> None:
        path = f"/accounts/{new_id()}"

        with_role = await answer(settings(accounts_database, Role.API), path)
        without = await answer(settings(accounts_database, Role.AGENTS), path)

        assert with_role.json()["code"] == "not-authenticated"
        assert without.json()["code"] == "not-found"


class TestReadiness:
    async def test_with_its_database_it_is_ready(self, accounts_database: str) -> None:
        health = Health()
        async with build(settings(accounts_database, Role.API), health):
            assert (await health.readiness()).ready

    async def test_names_what_waits_for_an_operator_and_stays_ready(
        self, accounts_database: str
    ) -> None:
        connection = await asyncpg.connect(accounts_database)
        await connection.execute(PARKED)
        await connection.close()

        health = Health()
        async with build(settings(accounts_database, Role.API), health):
            readiness = await health.readiness()

        assert readiness.ready
        reason = readiness.reasons.get("waits-for-operator")
        assert reason == "parked events of accounts.open-account: 1 too-odd"

    async def test_without_its_database_it_is_not_ready(self) -> None:
        health = Health()
        unreachable = "postgresql://accounts:accounts@127.0.0.1:1/accounts"
        async with build(settings(unreachable, Role.API), health):
            readiness = await health.readiness()

        assert not readiness.ready
        assert "database" in readiness.reasons
