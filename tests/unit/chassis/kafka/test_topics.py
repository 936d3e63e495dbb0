"""What a topic must be before a service reads or writes it."""

import dataclasses

import pytest

from chassis.kafka.client import KafkaSecurity
from chassis.kafka.topics import TopicState, config_violations
from contracts.topics import USERS_USER

ENOUGH = TopicState(
    partitions=8,
    replication_factor=3,
    config={
        "min.insync.replicas": "2",
        "max.message.bytes": "1048576",
        "retention.ms": "-1",
        "cleanup.policy": "delete",
    },
)


class TestShortcomings:
    def test_are_none_where_it_is_as_the_catalogue_asks_or_more(self) -> None:
        assert config_violations(USERS_USER, ENOUGH) == []
        assert config_violations(USERS_USER, dataclasses.replace(ENOUGH, partitions=16)) == []

    def test_are_all_there_is_of_a_topic_that_is_missing(self) -> None:
        assert config_violations(USERS_USER, None) == ["topic users.user is missing"]

    @pytest.mark.parametrize(
        ("state", "said"),
        [
            (dataclasses.replace(ENOUGH, partitions=4), "has 4 of 8 partitions"),
            (dataclasses.replace(ENOUGH, replication_factor=1), "has 1 of 3 replicas"),
        ],
    )
    def test_say_what_there_is_too_little_of(self, state: TopicState, said: str) -> None:
        assert config_violations(USERS_USER, state) == [f"topic users.user {said}"]

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("min.insync.replicas", "1", "has min.insync.replicas below 2"),
            ("max.message.bytes", "1000", "has max.message.bytes below 1048576"),
            ("retention.ms", "604800000", "keeps records for 604800000 ms only"),
            ("cleanup.policy", "compact", "is compacted, which removes events"),
        ],
    )
    def test_say_which_setting_would_lose_events(self, name: str, value: str, said: str) -> None:
        state = dataclasses.replace(ENOUGH, config={**ENOUGH.config, name: value})

        assert config_violations(USERS_USER, state) == [f"topic users.user {said}"]


class TestSecurity:
    def test_is_passed_to_every_client_whole(self) -> None:
        security = KafkaSecurity("SASL_PLAINTEXT", "SCRAM-SHA-512", "ada", "secret")

        assert security.client_arguments() == {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "ada",
            "sasl_plain_password": "secret",
            "ssl_context": None,
        }
