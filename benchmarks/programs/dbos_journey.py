"""A sign-up's journey as a durable workflow of DBOS Transact; it runs in its own environment.

``python -m benchmarks.programs.dbos_journey`` prints the port at which it takes names.
"""

import asyncio
import os
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

import aiohttp
import uvloop
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig  # type: ignore[import-not-found]

from benchmarks.programs.plain_tables import ACCOUNT, ENTRY, RECORD, TASK, TASK_NAMES, USER

# Each statement inserts rows with new keys, so nothing more is needed.
ISOLATION: Final = "READ COMMITTED"


async def datasource(service: str) -> AsyncSQLAlchemyDatasource:
    return await AsyncSQLAlchemyDatasource.create(
        os.environ[f"{service.upper()}_DATABASE_URL"], engine_kwargs={"pool_size": 20}
    )


async def main() -> None:
    config: DBOSConfig = {
        "name": "sign-ups",
        "system_database_url": os.environ["SYSTEM_DATABASE_URL"],
        "log_level": "WARNING",
    }
    DBOS(config=config)
    users, accounts, audit = [await datasource(each) for each in ("users", "accounts", "audit")]
    headers = {"Authorization": "Bearer xoxb-dbos"}
    slack = aiohttp.ClientSession(os.environ["SLACK_URL"], headers=headers)

    @users.transaction(isolation_level=ISOLATION)  # type: ignore[untyped-decorator]
    async def create_user(id_: str, name: str) -> None:
        values = {"id": id_, "name": name, "email": f"{name}@example.com"}
        await users.sql_session().execute(USER, values)

    @users.transaction(isolation_level=ISOLATION)  # type: ignore[untyped-decorator]
    async def give_tasks(user: str) -> list[str]:
        tasks = [{"id": str(uuid4()), "user": user, "name": name} for name in TASK_NAMES]
        await users.sql_session().execute(TASK, tasks)
        return [each["id"] for each in tasks]

    @accounts.transaction(isolation_level=ISOLATION)  # type: ignore[untyped-decorator]
    async def open_account(user: str) -> str:
        id_ = str(uuid4())
        session = accounts.sql_session()
        await session.execute(ACCOUNT, {"id": id_, "user": user})
        await session.execute(ENTRY, {"id": str(uuid4()), "account": id_})
        return id_

    @audit.transaction(isolation_level=ISOLATION)  # type: ignore[untyped-decorator]
    async def keep(records: list[dict[str, str]]) -> None:
        await audit.sql_session().execute(RECORD, records)

    @DBOS.step()  # type: ignore[untyped-decorator]
    async def post(name: str) -> None:
        body = {"channel": "growth", "text": f"{name} signed up"}
        async with slack.post("/api/chat.postMessage", json=body) as answer:
            await answer.json()

    def record(type_: str, subject: str, user: str) -> dict[str, str]:
        id_ = str(uuid5(UUID(subject), type_))
        return {"id": id_, "type": type_, "subject": subject, "payload": f"{type_} {user}"}

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    async def sign_up(id_: str, name: str) -> None:
        await create_user(id_, name)
        # Steps may run at once, when they begin in the same order each time.
        account, tasks, *_ = await asyncio.gather(
            open_account(id_),
            give_tasks(id_),
            keep([record("signed-up", id_, id_)]),
            post(name),
        )
        created = [record("task-created", each, id_) for each in tasks]
        await keep([record("account-opened", account, id_), *created])

    async def sign_ups(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            id_ = str(uuid4())
            await DBOS.start_workflow_async(sign_up, id_, line.decode().strip())
            writer.write(f"{id_}\n".encode())

    DBOS.launch()
    server: Any = await asyncio.start_server(sign_ups, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
