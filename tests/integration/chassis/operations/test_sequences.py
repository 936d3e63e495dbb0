"""Each aggregate's last sequence, for readers who check that no last event is missing."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert

from chassis.operations.context import ServiceRuntime
from chassis.operations.sequences import NotOurTopic, SequencesSearch, sequences
from chassis.persistence.database import Database
from chassis.settings import ServiceSettings
from contracts.operations import SubscriberPausedV1
from contracts.topics import Topic
from tests.integration.chassis.path import PathWork, settings_for

from .operating import asking, runtime_of, service_of, things, topic_with_withheld


@pytest.fixture
def topic() -> Topic:
    return topic_with_withheld()


@pytest.fixture
def runtime(
    database: str, engine: Database, topic: Topic
) -> ServiceRuntime[ServiceSettings, PathWork]:
    return runtime_of(service_of(topic), settings_for(database, "127.0.0.1:1"), engine)


async def keep(engine: Database, *numbers: int) -> list[UUID]:
    """Insert aggregates with these sequences; return their ids, in order."""
    ids = sorted(uuid4() for _ in numbers)
    async with engine.begin() as connection:
        await connection.execute(
            insert(things),
            [
                {"id": id_, "version": 1, "sequence": sequence}
                for id_, sequence in zip(ids, numbers, strict=True)
            ],
        )
    return ids


class TestSequences:
    async def test_come_page_by_page_in_the_order_of_ids(
        self,
        engine: Database,
        topic: Topic,
        runtime: ServiceRuntime[ServiceSettings, PathWork],
    ) -> None:
        ids = await keep(engine, 3, 0, 7, 1, 2)
        found: list[tuple[UUID, int]] = []
        after: UUID | None = None
        sizes: list[int] = []

        while not sizes or after is not None:
            page = await sequences(runtime, SequencesSearch(topic=topic.name, after=after, limit=2))
            found += [(each.subject, each.last_sequence) for each in page.sequences]
            sizes.append(len(page.sequences))
            after = page.next

        assert found == list(zip(ids, (3, 0, 7, 1, 2), strict=True))
        assert sizes == [2, 2, 1]

    async def test_include_those_of_operators_acts(
        self, engine: Database, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        one, two = sorted((uuid4(), uuid4()))
        act = SubscriberPausedV1(by="ada", why="x", subscriber="test.one", topic="t")
        for acts in ({one: act}, {one: act, two: act}):
            async with runtime.act() as connection:
                await runtime.operator_log.record(connection, acts)

        page = await sequences(
            runtime, SequencesSearch(topic=runtime.service.operations_topic.name)
        )

        assert [(each.subject, each.last_sequence) for each in page.sequences] == [
            (one, 2),
            (two, 1),
        ]

    async def test_of_a_topic_of_another_service_are_refused(
        self, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        with pytest.raises(NotOurTopic):
            await sequences(runtime, SequencesSearch(topic="another.topic"))


class TestOverHttp:
    async def test_they_are_served_to_operators(
        self,
        engine: Database,
        topic: Topic,
        runtime: ServiceRuntime[ServiceSettings, PathWork],
    ) -> None:
        [id_] = await keep(engine, 4)
        search = {"topic": topic.name}
        async with asking(runtime) as client:
            answer = await client.get("/ops/sequences", params=search)
            by_user = await client.get("/ops/sequences", params=search, headers={"role": "user"})
            by_stranger = await client.get(
                "/ops/sequences", params=search, headers={"role": "none"}
            )

        assert answer.json() == {
            "topic": topic.name,
            "sequences": [{"subject": str(id_), "last_sequence": 4}],
            "next": None,
        }
        assert (by_user.status_code, by_stranger.status_code) == (403, 401)

    @pytest.mark.parametrize(
        ("search", "status", "code"),
        [
            ({"topic": "another.topic"}, 404, "not-our-topic"),
            ({}, 422, "invalid-fields"),
            ({"topic": "t", "after": "x"}, 422, "invalid-fields"),
            ({"topic": "t", "limit": "1001"}, 422, "invalid-fields"),
            ({"topic": "t", "subject": "x"}, 422, "invalid-fields"),
        ],
    )
    async def test_an_invalid_search_is_refused(
        self,
        runtime: ServiceRuntime[ServiceSettings, PathWork],
        search: dict[str, str],
        status: int,
        code: str,
    ) -> None:
        async with asking(runtime) as client:
            answer = await client.get("/ops/sequences", params=search)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
