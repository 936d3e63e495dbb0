"""What a broker answers that does not give a client a topic's id."""

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from chassis.kafka.topic_ids import topic_ids
from chassis.persistence.tables import UNKNOWN_TOPIC_ID


class AnsweringClient:
    """An administrative client whose broker answers with these topics."""

    def __init__(self, *topics: Any) -> None:
        self._client = self
        self._topics = topics

    def get_random_node(self) -> int:
        return 1

    async def send(self, _node: int, _request: object) -> Any:
        for each in self._topics:
            if isinstance(each, Exception):
                raise each
        return SimpleNamespace(topics=self._topics)


class TestAnAnswer:
    async def test_without_authorisation_makes_the_id_unknown(self) -> None:
        client: Any = AnsweringClient(
            (TopicAuthorizationFailedError.errno, "t", UNKNOWN_TOPIC_ID, False, [], 0, {})
        )

        assert await topic_ids(client, ["t"]) == {"t": UNKNOWN_TOPIC_ID}

    async def test_of_a_topic_that_has_no_leader_yet_has_its_id(self) -> None:
        id_ = uuid4()
        client: Any = AnsweringClient((5, "t", id_, False, [], 0, {}))

        assert await topic_ids(client, ["t"]) == {"t": id_}

    async def test_that_a_topic_is_missing_leaves_it_out(self) -> None:
        client: Any = AnsweringClient(
            (UnknownTopicOrPartitionError.errno, "t", UNKNOWN_TOPIC_ID, False, [], 0, {})
        )

        assert await topic_ids(client, ["t"]) == {}

    async def test_that_does_not_come_is_no_unknown_id(self) -> None:
        client: Any = AnsweringClient(KafkaConnectionError())

        with pytest.raises(KafkaConnectionError):
            await topic_ids(client, ["t"])
