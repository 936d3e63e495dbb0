"""Events go from Kafka into effects: each once, in order, from where progress says."""

from uuid import uuid4

from chassis.testing import eventually
from tests.integration.chassis.path import (
    consuming,
    count,
    create_topic,
    publish,
    rows,
    schema,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
)


class TestTheStraightPath:
    async def test_every_event_has_its_effect_once_and_in_order(
        self, database: str, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(50)]
        events = [signed_up(each, number) for number in (1, 2, 3) for each in subjects]
        await publish(kafka, topic, events)

        async with (
            schema(database) as engine,
            consuming(
                settings_for(database, kafka),
                engine,
                [subscriber("test.one", topic)],
                service=topic.name,
            ),
        ):

            async def all_handled() -> bool:
                return await count(database) == 150

            await eventually(all_handled)
        found = await rows(
            database,
            "SELECT subject, array_agg(sequence ORDER BY event_id) s FROM effects GROUP BY 1",
        )
        assert {each["subject"] for each in found} == {str(each) for each in subjects}
        assert all(each["s"] == [1, 2, 3] for each in found)
