"""What a topic must have before a service reads or writes it."""

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


class TestConfigViolations:
    def test_a_topic_that_meets_or_exceeds_the_catalogue_has_none(self) -> None:
        assert config_violations(USERS_USER, ENOUGH) == []
        assert config_violations(USERS_USER, dataclasses.replace(ENOUGH, partitions=16)) == []

    def test_a_missing_topic_has_one(self) -> None:
        assert config_violations(USERS_USER, None) == ["topic users.user is missing"]

    @pytest.mark.parametrize(
        ("state", "violation"),
        [
            (dataclasses.replace(ENOUGH, partitions=4), "has 4 of 8 partitions"),
            (dataclasses.replace(ENOUGH, replication_factor=1), "has 1 of 3 replicas"),
        ],
    )
    def test_too_few_partitions_or_replicas_are_violations(
        self, state: TopicState, violation: str
    ) -> None:
        assert config_violations(USERS_USER, state) == [f"topic users.user {violation}"]

    @pytest.mark.parametrize(
        ("name", "value", "violation"),
        [
            ("min.insync.replicas", "1", "has min.insync.replicas below 2"),
            ("max.message.bytes", "1000", "has max.message.bytes below 1048576"),
            ("retention.ms", "604800000", "keeps records for 604800000 ms only"),
            ("cleanup.policy", "compact", "is compacted, which removes events"),
        ],
    )
    def test_a_setting_that_would_lose_events_is_a_violation(
        self, name: str, value: str, violation: str
    ) -> None:
        state = dataclasses.replace(ENOUGH, config={**ENOUGH.config, name: value})

        assert config_violations(USERS_USER, state) == [f"topic users.user {violation}"]


class TestSecurity:
    def test_is_passed_to_every_client(self) -> None:
        security = KafkaSecurity("SASL_PLAINTEXT", "SCRAM-SHA-512", "ada", "secret")

        assert security.client_arguments() == {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "ada",
            "sasl_plain_password": "secret",
            "ssl_context": None,
        }
