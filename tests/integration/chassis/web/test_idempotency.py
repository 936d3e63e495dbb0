import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, SecretStr
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select, text
from sqlalchemy.schema import CreateTable

from chassis.persistence import tables
from chassis.persistence.database import Connection, Database
from chassis.persistence.idempotency_keys import (
    KEEP,
    ExpiredKeys,
    IdempotencyKeys,
    PostgresIdempotencyKeys,
    ScopedKey,
)
from chassis.persistence.transactor import Transactor
from chassis.settings import ServiceSettings
from chassis.web.app import create_app
from chassis.web.health import Health
from chassis.web.idempotency import IdempotentCommand, idempotent
from tests.unit.chassis.persistence.idempotency_keys_suite import ANSWER, KEY, IdempotencyKeysSuite

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

orders = Table(
    "orders",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("toy", Text, nullable=False, unique=True),
)


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    engine = Database(database, pool_size=20, application_name="test")
    async with engine.begin() as connection:
        await connection.execute(CreateTable(tables.idempotency_keys))
        await connection.execute(CreateTable(orders))
    yield engine
    await engine.close()


class TestPostgresIdempotencyKeys(IdempotencyKeysSuite):
    @pytest.fixture
    async def keys(self, engine: Database) -> AsyncIterator[IdempotencyKeys]:
        async with engine.begin_rolled_back() as connection:
            yield PostgresIdempotencyKeys(connection)

    async def test_a_claim_that_is_rolled_back_leaves_nothing(self, engine: Database) -> None:
        async with engine.begin_rolled_back() as connection:
            keys = PostgresIdempotencyKeys(connection)
            await keys.claim(KEY, NOW)
            await keys.remember(KEY, ANSWER, NOW)

        async with engine.begin_rolled_back() as connection:
            assert await PostgresIdempotencyKeys(connection).claim(KEY, NOW) is None


class TestExpiredKeys:
    async def test_expired_keys_are_deleted_and_others_stay(self, engine: Database) -> None:
        fresh = ScopedKey("", "POST /orders", "fresh")
        async with engine.begin() as connection:
            keys = PostgresIdempotencyKeys(connection)
            for number in range(3):
                await keys.claim(ScopedKey("", "POST /orders", str(number)), NOW - KEEP)
            await keys.claim(fresh, NOW - KEEP + timedelta(microseconds=1))

        assert await ExpiredKeys(engine, lambda: NOW).purge() == 3

        async with engine.connect() as connection:
            left = await connection.scalars(select(tables.idempotency_keys.c.key))
            assert left == ["fresh"]

    async def test_more_than_one_batch_is_deleted_in_one_step(self, engine: Database) -> None:
        answer = {"body_hmac": b"", "status": 201, "headers": {}, "body": b""}
        owner = {"principal": "", "route": "POST /orders", "created_at": NOW - KEEP}
        async with engine.begin() as connection:
            rows = [{**owner, **answer, "key": str(number)} for number in range(2_001)]
            await connection.execute(insert(tables.idempotency_keys), rows)
        expired = ExpiredKeys(engine, lambda: NOW)

        run = asyncio.create_task(expired.run())
        async with asyncio.timeout(30), engine.connect() as connection:
            count = select(func.count()).select_from(tables.idempotency_keys)
            while await connection.scalar(count):  # noqa: ASYNC110 - the database offers no event
                await asyncio.sleep(0.01)
        await expired.stop()
        await run


class Work:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.idempotency_keys = PostgresIdempotencyKeys(connection)

    async def flush(self) -> None:
        """Nothing is buffered."""


class Order(BaseModel):
    toy: str


class Shop:
    """A shop with a route that sells each toy once; it counts its attempts."""

    def __init__(self, engine: Database) -> None:
        self.attempts = 0
        self.pause_s = 0.0
        transact = Transactor(engine, Work)
        idempotent_in_shop = idempotent(transact, secret=SecretStr("s" * 32), now=lambda: NOW)
        router = APIRouter()

        @router.post("/orders", status_code=201)
        async def post_order(
            order: Order, once: Annotated[IdempotentCommand[Work], Depends(idempotent_in_shop)]
        ) -> Response:
            return await once(
                lambda work: self.sell(work, order.toy),
                answer=lambda number: JSONResponse({"number": number, "id": uuid4().hex}, 201),
            )

        self.app = create_app(
            title="Toys",
            description="Toys, for tests.",
            version="1",
            settings=ServiceSettings(
                http_port=0,
                database_url=SecretStr("postgresql://"),
                idempotency_secret=SecretStr("s" * 32),
            ),
            routers=[router],
            health=Health(),
        )

    async def sell(self, work: Work, toy: str) -> int:
        self.attempts += 1
        row = insert(orders).values(toy=toy).returning(orders.c.number)
        number: int = await work.connection.scalar(row)
        await asyncio.sleep(self.pause_s)
        return number


@pytest.fixture
def shop(engine: Database) -> Shop:
    return Shop(engine)


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(shop.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://toys") as client:
        yield client


async def sold(engine: Database) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(orders)) or 0


class TestAtOnce:
    async def test_twenty_requests_with_one_key_have_one_effect_and_one_answer(
        self, client: httpx.AsyncClient, shop: Shop, engine: Database
    ) -> None:
        # A toy can be sold once: the constraint would refuse a second sale.
        shop.pause_s = 0.05
        answers = await asyncio.gather(
            *(
                client.post("/orders", json={"toy": "bear"}, headers={"Idempotency-Key": "key-1"})
                for _ in range(20)
            )
        )

        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
        assert sorted(map(str, replayed)) == ["None"] + ["true"] * 19
        assert await sold(engine) == 1
        assert shop.attempts == 1

    async def test_requests_with_different_keys_do_not_conflict(
        self, client: httpx.AsyncClient, shop: Shop, engine: Database
    ) -> None:
        # PostgreSQL scans a table that it knows to be small, rather than use its index.
        async with engine.connect() as connection:
            await connection.execute(text("ANALYZE idempotency_keys"))

        answers = await asyncio.gather(
            *(
                client.post("/orders", json={"toy": str(n)}, headers={"Idempotency-Key": str(n)})
                for n in range(100)
            )
        )

        assert {answer.status_code for answer in answers} == {201}
        assert await sold(engine) == 100
        # With a scan most of them would fail and run again.
        assert shop.attempts <= 105

    async def test_when_the_first_fails_the_second_does_the_work(
        self, client: httpx.AsyncClient, shop: Shop, engine: Database
    ) -> None:
        shop.pause_s = 0.05
        first_fails = True
        sell = shop.sell

        async def sell_or_fail(work: Work, toy: str) -> int:
            nonlocal first_fails
            number = await sell(work, toy)
            if first_fails:
                first_fails = False
                raise RuntimeError
            return number

        shop.sell = sell_or_fail  # type: ignore[method-assign]
        statuses = [
            answer.status_code
            for answer in await asyncio.gather(
                *(
                    client.post(
                        "/orders", json={"toy": "bear"}, headers={"Idempotency-Key": "key-1"}
                    )
                    for _ in range(2)
                )
            )
        ]

        assert sorted(statuses) == [201, 500]
        assert await sold(engine) == 1

    async def test_the_request_itself_is_not_stored(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        await client.post("/orders", json={"toy": "bear"}, headers={"Idempotency-Key": "key-1"})

        async with engine.connect() as connection:
            row = (await connection.execute(select(tables.idempotency_keys))).one()
        assert (row.principal, row.route) == ("", "POST /orders")
        assert row.key == f"{row.body_hmac.hex()} key-1"
        assert row.created_at == NOW
        assert len(row.body_hmac) == 32
        assert b"bear" not in repr(tuple(row)).encode()
