"""The committed files are what the code generates, and other tools accept them."""

import json
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker

from contracts import __main__ as command
from contracts.envelope import decode, event_in
from contracts.example_events import EXAMPLES
from contracts.generated import HERE, out_of_date
from contracts.topics import EVENTS

VENDOR = Path(__file__).parent / "vendor"

every_example = pytest.mark.parametrize("event_type", EXAMPLES)


@cache
def committed(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def schema_errors(schema: Any, instance: Any) -> list[str]:
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return [error.message for error in validator.iter_errors(instance)]


def test_they_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    code = command.main(["check"])

    assert (code, capsys.readouterr().out) == (0, "")


def test_the_same_code_writes_the_same_bytes() -> None:
    assert out_of_date() == out_of_date() == []


class TestExamples:
    @every_example
    def test_the_envelope_follows_its_schema(self, event_type: str) -> None:
        example = committed(f"examples/{event_type}.json")

        assert schema_errors(committed("schemas/envelope.json"), example) == []

    @every_example
    def test_the_data_follows_the_schema_that_dataschema_names(self, event_type: str) -> None:
        example = committed(f"examples/{event_type}.json")
        schema = committed(f"schemas/{event_type}.json")

        assert schema["$id"] == example["dataschema"]
        assert schema_errors(schema, example["data"]) == []

    @every_example
    def test_our_reader_takes_the_committed_bytes(self, event_type: str) -> None:
        envelope = decode((HERE / "examples" / f"{event_type}.json").read_bytes())

        event = event_in(envelope, EVENTS[envelope.type])

        assert event.model_dump(mode="json") == envelope.data

    @every_example
    def test_the_cloudevents_sdk_reads_the_record(self, event_type: str) -> None:
        record = EXAMPLES[event_type]
        ours = decode(record.payload)

        theirs = from_kafka(
            KafkaMessage(headers=dict(record.headers), key=record.key, value=record.payload),
            JSONFormat(),
        )

        assert theirs.get_specversion() == "1.0"
        assert theirs.get_id() == str(ours.id)
        assert theirs.get_source() == ours.source
        assert theirs.get_type() == ours.type
        assert theirs.get_subject() == ours.subject
        assert theirs.get_time() == ours.time
        assert theirs.get_datacontenttype() == "application/json"
        assert theirs.get_dataschema() == ours.dataschema
        assert theirs.get_data() == ours.data
        assert theirs.get_extension("sequence") == f"{ours.sequence:010d}"
        assert theirs.get_extension("correlationid") == ours.correlationid
        assert theirs.get_extension("causationid") == ours.causationid
        assert theirs.get_extension("traceparent") == ours.traceparent

    def test_they_are_the_events_of_one_sign_up(self) -> None:
        envelopes = {name: decode(record.payload) for name, record in EXAMPLES.items()}
        sign_up = envelopes["users.user-signed-up.v1"]
        effects = [envelopes["accounts.account-opened.v1"], envelopes["users.task-created.v1"]]

        assert {effect.causationid for effect in effects} == {str(sign_up.id)}
        assert len({envelope.correlationid for envelope in envelopes.values()}) == 1
        for envelope in envelopes.values():
            milliseconds = timedelta(milliseconds=envelope.id.int >> 80)
            assert milliseconds / timedelta(seconds=1) == envelope.time.timestamp()


class TestAsyncapi:
    def test_it_follows_the_published_schema(self) -> None:
        published = json.loads((VENDOR / "asyncapi-3.0.0.schema.json").read_text(encoding="utf-8"))

        errors = list(Draft7Validator(published).iter_errors(committed("asyncapi.json")))

        assert [error.message for error in errors] == []

    @every_example
    def test_the_example_of_a_message_follows_its_payload_and_headers(
        self, event_type: str
    ) -> None:
        document = committed("asyncapi.json")
        message = document["components"]["messages"][event_type]
        [example] = message["examples"]

        for part in ("payload", "headers"):
            schema = {**message[part], "components": document["components"]}
            assert schema_errors(schema, example[part]) == []

    @pytest.mark.parametrize("part", ["type", "dataschema", "data"])
    def test_a_message_refuses_what_belongs_to_another(self, part: str) -> None:
        document = committed("asyncapi.json")
        payload = document["components"]["messages"]["users.user-signed-up.v1"]["payload"]
        own, others = (
            committed(f"examples/{event_type}.json")
            for event_type in ("users.user-signed-up.v1", "users.task-created.v1")
        )

        schema = {**payload, "components": document["components"]}

        assert schema_errors(schema, own | {part: others[part]}) != []
