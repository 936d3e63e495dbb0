"""The service subscribes to every topic of the catalogue, also to those added later."""

from audit_service.agents import subscribers
from audit_service.records import keep
from chassis.consuming.subscribers import Start
from contracts.topics import TOPICS, Topic
from contracts.users import UserSignedUpV1


class TestSubscribers:
    def test_there_is_one_for_every_topic_of_the_catalogue(self) -> None:
        assert [each.topic for each in subscribers(TOPICS)] == list(TOPICS)

    def test_a_topic_added_to_the_catalogue_has_one_too(self) -> None:
        added = Topic(
            name="users.onboarding",
            key="user id",
            owner="users",
            consumers=("audit",),
            events=(UserSignedUpV1,),
        )
        *_, last = subscribers([*TOPICS, added])
        assert (last.topic, last.keep, last.starts) == (added, keep, Start.BEGINNING)
