"""A schema is a draft until it is committed; a wrong example is named with what to do about it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contracts import __main__ as command
from contracts import generated
from contracts.accounts import AccountOpenedV1
from contracts.envelope import EncodedEvent
from contracts.example_events import EXAMPLES
from contracts.example_rules import example_mistakes
from contracts.generated import HERE
from contracts.topics import EVENTS
from contracts.users import UserSignedUpV1

SIGNED_UP = UserSignedUpV1.event_type
OPENED = AccountOpenedV1.event_type


class Checkout:
    """A checkout whose generated files are those of an older state of the code."""

    def __init__(self, root: Path) -> None:
        self.contracts = root / "contracts"
        self.contracts.mkdir()
        for name in ("schemas", "examples"):
            shutil.copytree(HERE / name, self.contracts / name)
        for name in ("asyncapi.json", "README.md"):
            shutil.copy(HERE / name, self.contracts / name)
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=self.contracts, check=True)  # noqa: S607

    def commit(self, *paths: str) -> None:
        self.git("add", *paths)
        self.git("commit", "--quiet", "--message", "contracts")

    def had_another_field(self, event_type: str) -> str:
        """Give the schema a field that the code has no more; return the schema's path."""
        path = f"schemas/{event_type}.json"
        schema: dict[str, Any] = json.loads((self.contracts / path).read_text())
        schema["properties"]["alias"] = {"type": "string", "maxLength": 15}
        (self.contracts / path).write_text(json.dumps(schema))
        return path


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


class TestADraft:
    def test_may_change_until_it_is_committed(
        self, checkout: Checkout, capsys: pytest.CaptureFixture[str]
    ) -> None:
        draft = checkout.had_another_field(SIGNED_UP)
        others = [f"schemas/{name}.json" for name in EVENTS if name != SIGNED_UP]
        checkout.commit(*others)

        assert command.main(["generate"], checkout.contracts) == 0
        assert f"{draft}: written" in capsys.readouterr().out

        checkout.had_another_field(SIGNED_UP)
        checkout.commit(draft)

        assert command.main(["generate"], checkout.contracts) == 1
        assert f"{SIGNED_UP}.alias: removed" in capsys.readouterr().out

    def test_is_everything_before_the_first_commit(self, checkout: Checkout) -> None:
        checkout.had_another_field(SIGNED_UP)

        assert command.main(["generate"], checkout.contracts) == 0

    def test_is_not_what_was_committed_and_then_overwritten_by_hand(
        self, checkout: Checkout, capsys: pytest.CaptureFixture[str]
    ) -> None:
        published = checkout.had_another_field(SIGNED_UP)
        checkout.commit(".")
        shutil.copy(HERE / published, checkout.contracts / published)

        assert command.main(["check"], checkout.contracts) == 1
        assert f"{SIGNED_UP}.alias: removed" in capsys.readouterr().out


class TestAnExample:
    def test_that_is_right_is_no_mistake(self) -> None:
        assert list(example_mistakes(EVENTS, EXAMPLES)) == []

    def test_that_is_missing_is_shown_as_the_line_to_add(self) -> None:
        without = {name: each for name, each in EXAMPLES.items() if name != OPENED}

        assert list(example_mistakes(EVENTS, without)) == [
            (
                f"{OPENED}: has no example; add to EXAMPLES in contracts/example_events.py:"
                "  AccountOpenedV1.event_type: _record(AccountOpenedV1(…), subject=…, after_ms=…),"
            )
        ]

    def test_of_an_event_in_no_topic_is_named(self) -> None:
        events = {name: each for name, each in EVENTS.items() if name != OPENED}

        (line,) = example_mistakes(events, EXAMPLES)
        assert line.startswith(f"{OPENED}: has an example and no topic; add its model")

    def test_of_another_time_or_with_the_id_of_another_is_named(self) -> None:
        sign_up = EXAMPLES[SIGNED_UP]
        late = sign_up.payload.replace(b"04:40:13.633", b"04:40:13.634")
        examples = {
            SIGNED_UP: EncodedEvent(sign_up.key, late, sign_up.headers),
            OPENED: sign_up,
        }
        events = {name: EVENTS[name] for name in examples}

        assert late != sign_up.payload
        assert list(example_mistakes(events, examples)) == [
            (
                f"{SIGNED_UP}: the id of its example in contracts/example_events.py has another"
                " time than the event; leave id out there, and it is made from after_ms"
            ),
            f"{OPENED}: its example in contracts/example_events.py is an event of type {SIGNED_UP}",
            (
                f"{OPENED}: its example in contracts/example_events.py has the id of that of"
                f" {SIGNED_UP}; give it another after_ms"
            ),
        ]

    @pytest.fixture
    def without_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fewer = {name: each for name, each in EXAMPLES.items() if name != OPENED}
        monkeypatch.setattr(generated, "EXAMPLES", fewer)

    @pytest.mark.usefixtures("without_one")
    @pytest.mark.parametrize("verb", ["check", "generate"])
    def test_that_is_missing_ends_the_command_with_that_line_only(
        self, verb: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main([verb]) == 1

        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"{OPENED}: has no example; add to EXAMPLES")
