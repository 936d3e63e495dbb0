"""A user's own events reach their browser, on PostgreSQL and through the gateway."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete, select

from chassis.persistence.bulk import rows_in
from chassis.persistence.database import Database, Executed
from chassis.testing import eventually
from notification_service.postgres_deliveries import PostgresNotificationWork
from notification_service.retention import OldStreamEvents
from notification_service.stream_events import Position
from notification_service.stream_log import Read, StreamLog
from notification_service.tables import stream_events, streams
from tests.integration.gateway.toys import gateway

from .streaming import (
    Running,
    bearer,
    consume,
    freezing_of,
    now,
    record_of,
    running,
    stored_of,
    stream,
    token_of,
    transaction_of,
)
from .test_retention import a_lock_is_awaited


@pytest.fixture
async def service(notification_database: str) -> AsyncIterator[Running]:
    async with running(notification_database) as service:
        yield service


@pytest.fixture
async def client(service: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway before the service."""
    async with gateway(notification_url=service.url) as client:
        yield client


async def rows(engine: Database, user_id: UUID) -> list[tuple[int, UUID]]:
    asked = select(stream_events.c.number, stream_events.c.event_id)
    asked = asked.where(stream_events.c.user_id == user_id).order_by(stream_events.c.number)
    async with engine.connect() as connection:
        return [(row.number, row.event_id) for row in await connection.execute(asked)]


class TestTheLog:
    async def test_numbers_each_users_events_without_a_gap_whoever_writes_at_once(
        self, engine: Database
    ) -> None:
        users = [uuid4() for _ in range(4)]
        chunks = [
            (users * 2)[first : first + 3][::way] for first in range(4) for way in (1, -1)
        ] * 8

        async def write(chunk: Sequence[UUID]) -> None:
            await consume(
                engine,
                *(record_of(transaction_of(uuid4(), owner=user_id)) for user_id in chunk),
            )

        await asyncio.gather(*(write(chunk) for chunk in chunks))

        for user_id in users:
            expected = sum(chunk.count(user_id) for chunk in chunks)
            numbers = [number for number, _ in await rows(engine, user_id)]
            assert numbers == list(range(1, expected + 1))

    async def test_a_commit_wakes_those_who_wait_for_events(self, engine: Database) -> None:
        woken: list[str] = []
        engine.on_commit(stream_events, lambda: woken.append("by events"))

        await consume(engine, record_of(transaction_of(uuid4())))

        assert woken == ["by events"]

    async def test_a_number_that_commits_late_is_waited_for_by_the_next(
        self, engine: Database
    ) -> None:
        ada, log = uuid4(), StreamLog(engine, now)
        begin = await log.last_of(ada)
        async with engine.begin() as connection:
            work = PostgresNotificationWork(connection)
            work.stream_events.append(stored_of(ada, "first"))
            await work.flush()
            second = asyncio.create_task(consume(engine, record_of(transaction_of(ada))))
            await eventually(lambda: a_lock_is_awaited(engine))
            meanwhile = await log.after([(ada, begin)])
        await second

        after = (await log.after([(ada, begin)]))[0].events

        assert meanwhile == {}
        assert [at.number for at, _ in after] == [1, 2]
        assert after[0][1] == "first"

    async def test_of_a_chunk_is_one_statement_for_each_table_and_locks_users_in_order(
        self, engine: Database
    ) -> None:
        users = [uuid4() for _ in range(20)]
        ran: list[Executed] = []

        async with engine.begin() as connection:
            connection.observers.append(ran.append)
            work = PostgresNotificationWork(connection)
            for user_id in users * 3:
                work.stream_events.append(stored_of(user_id, "{}"))
            await work.flush()

        assert [each.sql.split()[2] for each in ran] == ["streams", "stream_events"]
        locked = [row["user_id"] for row in rows_in(ran[0].values[0]) or ()]
        assert locked == sorted(users)

    async def test_is_read_behind_many_positions_at_once(self, engine: Database) -> None:
        users = [uuid4() for _ in range(500)]
        await consume(engine, *(record_of(transaction_of(user_id)) for user_id in users))
        log = StreamLog(engine, now)
        positions = [(user_id, await log.last_of(user_id)) for user_id in users[:5]]

        assert await log.after(positions) == {}
        at = Position(positions[0][1].epoch, 0)
        found = dict(await log.after([*positions[1:], (users[0], at)]))

        assert [at.number for at, _ in found.pop(4).events] == [1]
        assert found == {}

    async def test_events_are_deleted_after_their_time_and_a_reader_behind_them_is_told(
        self, engine: Database
    ) -> None:
        ada, log = uuid4(), StreamLog(engine, now)
        await consume(engine, record_of(transaction_of(ada)))
        purge = OldStreamEvents(
            engine, lambda: now() + timedelta(hours=48), retention=timedelta(hours=48)
        )
        first = (await rows(engine, ada))[0]
        await purge.purge()
        await consume(engine, record_of(transaction_of(ada, 3), sequence=2))
        last = await log.last_of(ada)

        behind = await log.after([(ada, Position(last.epoch, 0))])
        after_it = await log.after([(ada, Position(last.epoch, 1))])

        assert first[0] == 1
        assert [number for number, _ in await rows(engine, ada)] == [2]
        assert behind == {0: Read(last, [])}
        assert [at for at, _ in after_it[0].events] == [last]

    async def test_begins_a_new_epoch_where_a_users_row_was_deleted(self, engine: Database) -> None:
        ada, log = uuid4(), StreamLog(engine, now)
        await consume(engine, record_of(transaction_of(ada)))
        before = await log.last_of(ada)
        async with engine.begin() as connection:
            await connection.execute(delete(streams))
        await consume(engine, record_of(transaction_of(ada, 3), sequence=2))
        last = await log.last_of(ada)

        assert (before.number, last.number) == (1, 1)
        assert last.epoch > before.epoch
        assert await log.after([(ada, before)]) == {0: Read(last, [])}


class TestAStream:
    async def test_brings_a_users_own_events_and_no_others(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        ada, bob = uuid4(), uuid4()
        async with stream(client, bearer(ada)) as of_ada:
            opened = await of_ada.next()
            await consume(
                engine,
                record_of(transaction_of(bob)),
                record_of(transaction_of(ada)),
                record_of(freezing_of(ada), sequence=2),
            )
            events = [await of_ada.next(), await of_ada.next()]

        assert opened.type == "begin"
        assert [each.type for each in events] == ["message", "message"]
        created, frozen = (each.data for each in events)
        assert created["type"] == "accounts.transaction-created.v1"
        assert (created["user_id"], created["delta"]) == (str(ada), "12.30")
        assert frozen.keys() == {"type", "time", "account_id", "user_id"}
        headers = of_ada.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers.get_list("cache-control") == ["no-store"]
        assert headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in headers

    async def test_goes_on_at_another_process_behind_the_last_event(
        self, service: Running, engine: Database, notification_database: str
    ) -> None:
        ada = uuid4()
        async with service.client() as client, stream(client, bearer(ada)) as first:
            opened = await first.next()
        await consume(engine, *(record_of(transaction_of(ada, p), sequence=p) for p in (2, 3)))
        async with running(notification_database) as another, another.client() as client:
            async with stream(client, bearer(ada), behind=opened.id) as second:
                await second.next()
                event = await second.next()
            async with stream(client, bearer(ada), in_query=event.id) as third:
                again = [await third.next(), await third.next()]

        assert event.data["position"] == 2
        assert (again[0].type, again[0].id) == ("begin", event.id)
        assert again[1].data["position"] == 3

    async def test_behind_an_id_that_was_never_given_says_to_read_again_and_goes_on_from_now(
        self, service: Running, engine: Database
    ) -> None:
        ada = uuid4()
        await consume(engine, record_of(transaction_of(ada)))

        async with (
            service.client() as client,
            stream(client, bearer(ada), behind="1.7") as behind,
        ):
            first = await behind.next()
            await consume(engine, record_of(transaction_of(ada, 3), sequence=2))
            then = await behind.next()

        assert first.type == "read-again"
        assert then.data["position"] == 3

    async def test_holds_no_connection_to_the_database(
        self, notification_database: str, engine: Database
    ) -> None:
        users = [uuid4() for _ in range(5)]
        async with (
            running(notification_database, database_pool_size=1) as service,
            service.client() as client,
            AsyncExitStack() as opened,
        ):
            open_streams = [
                await opened.enter_async_context(stream(client, bearer(user_id)))
                for user_id in users
            ]
            for each in open_streams:
                await each.next()
            await consume(engine, *(record_of(transaction_of(user_id)) for user_id in users))
            events = [await each.next() for each in open_streams]

        assert [event.data["user_id"] for event in events] == [str(each) for each in users]

    async def test_has_a_comment_while_nothing_happens(self, notification_database: str) -> None:
        async with (
            running(notification_database, stream_heartbeat_s=0.01) as service,
            service.client() as client,
            stream(client, bearer(uuid4())) as quiet,
        ):
            assert (await quiet.comment()).strip() == ":"

    async def test_ends_when_the_process_stops(self, service: Running) -> None:
        async with service.client() as client, stream(client, bearer(uuid4())) as ending:
            await ending.next()
            service.health.set_stopping()

            assert await ending.rest() == []

    async def test_is_one_of_so_many_of_a_user(self, notification_database: str) -> None:
        ada = uuid4()
        async with (
            running(notification_database, streams_per_user=1) as service,
            service.client() as client,
            stream(client, bearer(ada)) as first,
        ):
            await first.next()
            refused = await client.get("/me/stream", headers=bearer(ada))

        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")


class TestAuthentication:
    async def test_of_an_event_source_is_a_cookie_for_this_path_and_a_minute(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        ada = uuid4()

        given = await client.post("/me/stream/cookie", headers=bearer(ada))
        cookie = given.headers["set-cookie"]
        name_and_value, *attributes = cookie.split("; ")
        async with stream(client, {"Cookie": name_and_value}) as of_ada:
            await of_ada.next()
            await consume(engine, record_of(transaction_of(ada)))
            event = await of_ada.next()
        elsewhere = await client.post("/me/stream/cookie", headers={"Cookie": name_and_value})

        assert given.status_code == 204
        assert set(attributes) == {"HttpOnly", "Max-Age=60", "Path=/me/stream", "SameSite=strict"}
        assert event.data["user_id"] == str(ada)
        assert elsewhere.status_code == 401

    @pytest.mark.parametrize("headers", [{}, {"Cookie": "stream-token=no-token"}])
    async def test_without_a_token_is_refused(
        self, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        client.cookies.clear()
        refused = await client.get(
            "/me/stream", headers=headers, params={"access_token": token_of(uuid4())}
        )

        assert (refused.status_code, refused.json()["code"]) == (401, "not-authenticated")
