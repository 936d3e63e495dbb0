from typing import Any

from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from tests.integration.users_service.processes import run, serving, until
from users_service.settings import UsersSettings

KATE = {"username": "kate", "email": "kate@example.com", "password": "correct horse"}


def changed(settings: UsersSettings, **changes: Any) -> UsersSettings:
    return settings.model_copy(update=changes)


class TestServe:
    async def test_a_user_signs_up_and_signs_in_while_kafka_is_unreachable(
        self, settings: UsersSettings
    ) -> None:
        async with serving(settings) as service:
            signed_up = await service.client.post("/users", json=KATE)
            token = await service.token("kate", KATE["password"])
            me = await service.client.get("/users/me", headers=token)
            docs = await service.client.get("/docs")

        assert signed_up.status_code == 201
        assert me.json()["id"] == signed_up.json()["id"]
        assert docs.status_code == 200
        assert service.exit_code == 0
        personal_data = [*KATE.values(), token["Authorization"].removeprefix("Bearer ")]
        assert [each for each in personal_data if each in service.log] == []

    async def test_refuses_to_sign_up_more_while_events_have_waited_for_too_long(
        self, settings: UsersSettings, users_database: str
    ) -> None:
        async with serving(changed(settings, outbox_age_limit_s=1)) as service:
            key = {"Idempotency-Key": "kate"}
            first = await service.client.post("/users", json=KATE, headers=key)

            async def refused() -> bool:
                joe = KATE | {
                    "username": f"joe.{new_id().hex[-8:]}",
                    "email": f"{new_id()}@example.com",
                }
                answer = await service.client.post("/users", json=joe)
                return answer.json().get("code") == "outbox-too-old" and answer.status_code == 503

            await until(refused)
            again = await service.client.post("/users", json=KATE, headers=key)
            token = await service.token("kate", KATE["password"])
            ready = await service.client.get("/health/ready")

        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()
        assert token
        assert "outbox-age" in ready.json()["troubles"]

    async def test_only_the_gateway_may_forward_an_address(self, settings: UsersSettings) -> None:
        gateway = {"X-Gateway-Secret": settings.gateway_secret.get_secret_value()}

        async with serving(changed(settings, sign_ins_per_network=1)) as service:

            async def guess(name: str, address: str, **headers: str) -> int:
                form = {"username": name, "password": "wrong horse"}
                forwarded = {"X-Forwarded-For": address} | headers
                answer = await service.client.post("/auth/token", data=form, headers=forwarded)
                return answer.status_code

            pretended = [await guess("joe", "192.0.2.1"), await guess("ann", "192.0.2.2")]
            forwarded = [
                await guess("joe", "192.0.2.1", **gateway),
                await guess("ann", "192.0.2.2", **gateway),
            ]

        assert pretended == [401, 429]
        assert forwarded == [401, 401]

    async def test_keys_are_rotated_without_a_restart(self, settings: UsersSettings) -> None:
        async with serving(settings) as service:
            await service.client.post("/users", json=KATE)
            before = await service.token("kate", KATE["password"])

            code, printed, _ = await run(settings, "rotate-keys")

            after = await service.token("kate", KATE["password"])
            published = (await service.client.get("/.well-known/jwks.json")).json()["keys"]
            answers = [
                await service.client.get("/users/me", headers=token) for token in (before, after)
            ]
        assert code == 0
        assert [key["kid"] for key in published][1:] == [printed.split()[0]]
        assert [answer.status_code for answer in answers] == [200, 200]


class TestTheWholePath:
    async def test_a_new_user_gets_their_onboarding_tasks(
        self, settings: UsersSettings, kafka: str
    ) -> None:
        async with admin_client(kafka) as admin:
            await create_topics(admin, brokers=1)
        name = f"users-{new_id().hex[-12:]}"
        async with serving(changed(settings, kafka_bootstrap=kafka, worker_name=name)) as service:
            await service.client.post("/users", json=KATE)
            token = await service.token("kate", KATE["password"])

            async def tasks() -> list[str]:
                answer = await service.client.get("/users/me/tasks", headers=token)
                return sorted(task["name"] for task in answer.json()["tasks"])

            async def has_tasks() -> bool:
                return bool(await tasks())

            await until(has_tasks)

            assert await tasks() == [
                "Create your GitHub account",
                "Review the project documentation",
            ]
        assert service.exit_code == 0


class TestCreateOperator:
    async def test_it_prints_whether_the_operator_was_created(
        self, settings: UsersSettings, password_file: str
    ) -> None:
        command = ("create-operator", "--username=root", "--email=root@localhost")

        first = await run(settings, *command, f"--password-file={password_file}")
        again = await run(settings, *command, f"--password-file={password_file}")

        assert first == (0, "root: created\n", "")
        assert again == (0, "root: is an operator already and was not changed\n", "")
