"""A change that would break a reader of a published version is refused, rule by rule."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import __main__ as command
from contracts.compatibility import breaking_catalogue_changes, breaking_schema_changes
from contracts.generated import HERE
from contracts.json_schemas import json_schemas
from contracts.topics import USERS_USER

SIGNED_UP = "users.user-signed-up.v1"
DOCUMENT = json.loads((HERE / "asyncapi.json").read_text(encoding="utf-8"))

READERS = ", ".join(USERS_USER.consumers)

Json = dict[str, Any]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of the committed files, to be changed."""
    for name in ("schemas", "examples"):
        shutil.copytree(HERE / name, tmp_path / name)
    for name in ("asyncapi.json", "README.md"):
        shutil.copy(HERE / name, tmp_path / name)
    return tmp_path


def schema_changes(old: Json, new: Json) -> list[str]:
    return breaking_schema_changes({"x.v1": old}, {"x.v1": new})


def an_object(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT = {"type": "string", "maxLength": 50}


class TestSchemas:
    @pytest.mark.parametrize(
        ("old", "new", "line"),
        [
            (an_object(a=TEXT), an_object(), "x.v1.a: removed"),
            (
                an_object(a=TEXT),
                an_object(a={"type": "integer"}),
                "x.v1.a: type is 'integer', was 'string'",
            ),
            (
                an_object(a={"type": "string", "format": "uuid"}),
                an_object(a={"type": "string"}),
                "x.v1.a: format is None, was 'uuid'",
            ),
            (
                an_object(a=TEXT),
                an_object(a={"type": "string", "maxLength": 60}),
                "x.v1.a: maxLength is 60, was 50",
            ),
            (
                an_object(a={"enum": ["x"]}),
                an_object(a={"enum": ["x", "y"]}),
                "x.v1.a: enum is ['x', 'y'], was ['x']",
            ),
            (
                an_object(a=TEXT),
                an_object(a={"anyOf": [{"type": "string"}, {"type": "null"}]}),
                "x.v1.a: anyOf is [{'type': 'string'}, {'type': 'null'}], was None",
            ),
            (
                an_object(a={"type": "integer", "default": 0}),
                an_object(a={"type": "integer", "default": 1}),
                "x.v1.a: default is 1, was 0",
            ),
            (
                an_object(),
                an_object(("a",), a=TEXT),
                "x.v1.a: required now, and older events lack it",
            ),
            (
                an_object(a=TEXT),
                an_object(("a",), a=TEXT),
                "x.v1.a: required now, and older events lack it",
            ),
            (
                an_object(("a",), a=TEXT),
                an_object(a=TEXT),
                "x.v1.a: may be absent now, and older readers rely on it",
            ),
            ({"additionalProperties": True}, {}, "x.v1: additionalProperties is None, was True"),
        ],
    )
    def test_a_change_that_breaks_is_named(self, old: Json, new: Json, line: str) -> None:
        assert line in schema_changes(old, new)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (an_object(a=TEXT), an_object(a=TEXT, b=TEXT)),
            (an_object(a=TEXT), an_object(a={**TEXT, "description": "new", "title": "A"})),
            (
                an_object(a={"anyOf": [{"type": "null", "title": "old"}]}),
                an_object(a={"anyOf": [{"type": "null"}]}),
            ),
        ],
    )
    def test_a_new_optional_field_and_a_new_description_are_fine(
        self, old: Json, new: Json
    ) -> None:
        assert schema_changes(old, new) == []

    def test_a_change_inside_a_nested_model_is_named(self) -> None:
        old, new = (
            {
                **an_object(lines={"type": "array", "items": {"$ref": "#/$defs/Line"}}),
                "$defs": {"Line": an_object(amount={"type": kind})},
            }
            for kind in ("integer", "string")
        )

        assert schema_changes(old, new) == ["x.v1#Line.amount: type is 'string', was 'integer'"]

    def test_a_new_version_is_compared_with_nothing(self) -> None:
        assert breaking_schema_changes({"x.v1": an_object(a=TEXT)}, {"x.v2": an_object()}) == []


class TestCatalogue:
    def test_the_committed_one_does_not_break_itself(self) -> None:
        assert breaking_catalogue_changes(DOCUMENT, DOCUMENT) == []

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            (lambda channels: channels.pop("users.user"), "topic users.user: removed"),
            (
                lambda channels: channels["users.user"].update({"x-key": "e-mail"}),
                "topic users.user: keyed by e-mail, was user id",
            ),
            (
                lambda channels: channels["users.user"]["bindings"]["kafka"].update(partitions=7),
                "topic users.user: partitions lowered from 8 to 7",
            ),
            (
                lambda channels: channels["users.user"]["messages"].pop(SIGNED_UP),
                f"topic users.user: {SIGNED_UP} removed, while read by {READERS}",
            ),
        ],
        ids=["topic", "key", "partitions", "event"],
    )
    def test_a_change_that_breaks_is_named(
        self, change: Callable[[Json], object], line: str
    ) -> None:
        changed = json.loads(json.dumps(DOCUMENT))
        change(changed["channels"])

        assert breaking_catalogue_changes(DOCUMENT, changed) == [line]

    def test_more_partitions_topics_events_and_readers_are_fine(self) -> None:
        old = json.loads(json.dumps(DOCUMENT))
        channels = old["channels"]
        channels.pop("users.task")
        channels["users.user"]["bindings"]["kafka"]["partitions"] = 4
        channels["users.user"]["messages"].pop(SIGNED_UP)
        channels["users.user"]["x-consumers"] = ["audit"]

        assert breaking_catalogue_changes(old, DOCUMENT) == []

    def test_an_event_without_consumers_may_be_removed(self) -> None:
        old, new = (json.loads(json.dumps(DOCUMENT)) for _ in range(2))
        old["channels"]["users.user"]["x-consumers"] = []
        new["channels"]["users.user"]["messages"].pop(SIGNED_UP)

        assert breaking_catalogue_changes(old, new) == []


class TestCommand:
    """The committed files are changed here, since the code cannot be."""

    def publish(self, directory: Path, change: Callable[[Json], object]) -> None:
        path = directory / "schemas" / f"{SIGNED_UP}.json"
        schema = json.loads(path.read_text(encoding="utf-8"))
        change(schema)
        path.write_text(json.dumps(schema), encoding="utf-8")

    @pytest.mark.parametrize("verb", ["check", "generate"])
    def test_a_breaking_change_is_refused_and_nothing_is_written(
        self, published: Path, capsys: pytest.CaptureFixture[str], verb: str
    ) -> None:
        self.publish(published, lambda schema: schema["properties"].update(alias=TEXT))
        before = {path: path.read_bytes() for path in published.rglob("*.*")}

        code = command.main([verb], published)

        assert code == 1
        assert f"{SIGNED_UP}.alias: removed" in capsys.readouterr().out
        assert {path: path.read_bytes() for path in published.rglob("*.*")} == before

    def test_a_removed_topic_is_refused(
        self, published: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        document = json.loads(json.dumps(DOCUMENT))
        document["channels"]["users.old"] = document["channels"]["users.user"]
        (published / "asyncapi.json").write_text(json.dumps(document), encoding="utf-8")

        assert command.main(["generate"], published) == 1
        assert "topic users.old: removed" in capsys.readouterr().out

    def test_a_compatible_change_is_stale_until_it_is_generated(
        self, published: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.publish(published, lambda schema: schema.update(description="Old words."))
        (published / "examples" / "users.gone.v1.json").write_text("{}", encoding="utf-8")

        assert command.main(["check"], published) == 1
        printed = capsys.readouterr().out
        assert f"schemas/{SIGNED_UP}.json: not up to date" in printed
        assert "examples/users.gone.v1.json: not up to date" in printed
        assert command.main(["generate"], published) == 0
        assert command.main(["check"], published) == 0

    def test_every_file_but_the_readme_is_generated_when_it_is_missing(
        self, published: Path, tmp_path: Path
    ) -> None:
        for name in ("schemas", "examples"):
            shutil.rmtree(published / name)
        (published / "asyncapi.json").unlink()

        assert command.main(["generate"], published) == 0

        for name, schema in json_schemas().items():
            assert json.loads((published / "schemas" / f"{name}.json").read_text()) == schema
