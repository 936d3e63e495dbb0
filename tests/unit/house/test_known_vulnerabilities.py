"""The check of the lock tells what is known from what could not be asked."""

import json
import sys
from typing import Any

import pytest

from tests.known_vulnerabilities import LOCK, Outcome, ask

from .repository import ROOT

CLICK = {"name": "click", "version": "8.3.3", "vulns": []}
UNANSWERED = {"name": "idna", "skip_reason": "Dependency not found and could not be audited"}
JINJA2 = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": []}],
}


def pip_audit(*answers: dict[str, Any], exit_code: int = 0) -> list[str]:
    """A command that prints what pip-audit does, and ends as it does."""
    printed = json.dumps({"dependencies": answers, "fixes": []})
    return [sys.executable, "-c", f"import sys; print({printed!r}); sys.exit({exit_code})"]


def test_it_reads_a_file_that_is_there() -> None:
    assert (ROOT / LOCK).is_file()


def test_without_a_known_one_it_says_for_how_many_it_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ask(pip_audit(CLICK)) == Outcome.NONE_KNOWN
    assert capsys.readouterr().out == "All 1 packages were asked for; 0 vulnerabilities known.\n"


def test_a_known_one_is_named_with_the_version_that_corrects_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ask(pip_audit(CLICK, JINJA2, UNANSWERED, exit_code=1)) == Outcome.SOME_KNOWN
    assert "jinja2 2.10: PYSEC-2019-217, corrected in 2.10.1\n" in capsys.readouterr().out


def test_a_package_that_the_registry_does_not_answer_for_is_not_taken_for_a_sound_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # pip-audit itself ends with 0 here.
    assert ask(pip_audit(CLICK, UNANSWERED)) == Outcome.NOT_ASKED
    assert "did not answer for 1 of 2 packages:\n  idna\n" in capsys.readouterr().out


def test_no_package_at_all_is_no_answer() -> None:
    assert ask(pip_audit()) == Outcome.NOT_ASKED


def test_without_a_network_it_says_that_nothing_could_be_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As pip-audit ends there: with the exit code that also means that something was found.
    without = "import sys; sys.exit('requests.exceptions.ConnectionError: no route')"

    assert ask([sys.executable, "-c", without]) == Outcome.NOT_ASKED
    assert capsys.readouterr().out == (
        "Nothing could be asked, so nothing is known:"
        " requests.exceptions.ConnectionError: no route\n"
    )
