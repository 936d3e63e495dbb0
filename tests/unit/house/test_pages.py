"""Every link of a page has a target, and every command on it exists and is run by a test."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click
import pytest

from .repository import ROOT, blocks, pages, prose, read

_CONTAINERS: Final = "tests/compose/system.py"
_NEWCOMER: Final = "tests/e2e/test_newcomer.py::test_the_first_hour"
_OUTBOX: Final = (
    "tests/integration/accounts_service/test_commands.py"
    "::test_the_commands_on_the_page_edit_a_row_that_kafka_refused"
)
_PROGRESS: Final = (
    "tests/integration/accounts_service/test_commands.py"
    "::test_the_commands_on_the_page_pause_and_resume_a_subscriber"
)
_TIMERS: Final = (
    "tests/integration/accounts_service/test_commands.py"
    "::test_the_commands_on_the_page_release_a_timer"
)
_DELIVERIES: Final = (
    "tests/integration/notification_service/test_commands.py"
    "::test_the_commands_on_the_page_retry_a_delivery"
)
RUN_BY: Final = {
    "make demo": _NEWCOMER,
    "make up": "tests/integration/local_cluster/test_cli.py::test_infrastructure_from_up_to_clean",
    "make status": _NEWCOMER,
    "make logs": _NEWCOMER,
    "make ops": "tests/integration/local_cluster/test_cluster.py"
    "::test_each_command_that_a_trouble_names_works_as_it_is_printed",
    "make verify": _NEWCOMER,
    "make down": _NEWCOMER,
    "make clean": _NEWCOMER,
    "make test": ".ci/run",
    "make test-compose": ".ci/run",
    "docker compose up": f"{_CONTAINERS}::up",
    "docker compose run": f"{_CONTAINERS}::verify",
    "docker compose down": f"{_CONTAINERS}::down",
    "docker compose exec": f"{_CONTAINERS}::kill",
    "python -m local_cluster kafka-console-consumer": _NEWCOMER,
    "python -m accounts_service parked": "tests/integration/accounts_service/test_parked.py"
    "::test_the_commands_on_the_page_find_edit_and_release_an_event",
    "python -m accounts_service outbox": _OUTBOX,
    "python -m accounts_service progress": _PROGRESS,
    "python -m accounts_service sequences": _PROGRESS,
    "python -m audit_service progress": "tests/integration/local_cluster/test_cluster.py"
    "::test_bytes_that_are_no_event_are_found_by_verify_until_an_operator_accepts_them",
    "python -m accounts_service timers": _TIMERS,
    "python -m notification_service deliveries": _DELIVERIES,
}
"""The test that runs each command of a page, on every change."""

FOLLOWED: Final = {
    Path("docs/copying.md"): "tests/guides/test_copying.py",
    Path("docs/extending.md"): "tests/guides/test_extending.py",
}
"""The tests that do what each section of a page says, its commands included."""

# The module with the commands, where it is not the one that is run.
_COMMANDS_OF: Final = {"local_cluster": "local_cluster.cli"}

every_page = pytest.mark.parametrize("page", pages(), ids=str)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"(?m)^#+ +(.+)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@every_page
def test_every_link_within_the_repository_has_a_target(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.relative_to(ROOT)), link


def make_targets() -> set[str]:
    """The targets of the Makefile that are not files."""
    return set(re.findall(r"(?m)^([a-z][a-z0-9-]*):(?!=)", read("Makefile")))


def test_make_help_lists_every_target() -> None:
    output = subprocess.run(
        ["make", "--no-print-directory", "help"],  # noqa: S607 - the make on the path
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert {line.split()[0] for line in output.splitlines()} == make_targets()
    assert all(len(line.split()) > 1 for line in output.splitlines())


def test_no_target_can_be_taken_for_a_file() -> None:
    phony = re.search(r"(?m)^\.PHONY: ((?:.*\\\n)*.*)", read("Makefile"))

    assert phony
    assert set(phony[1].replace("\\\n", " ").split()) == make_targets()


def shown_commands(page: Path) -> Iterator[str]:
    """The commands of a page, in its text and in its shell blocks."""
    yield from re.findall(r"`([^`]+)`", prose(page))
    yield from typed(page)


def typed(page: Path) -> Iterator[str]:
    for block in blocks(page):
        if block.language == "sh":
            yield from block.text.replace("\\\n", " ").splitlines()


def words_of(command: str) -> list[str]:
    """The words of a command, without settings before it and a comment after it."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return []  # not a command, but text with an apostrophe
    while words and re.fullmatch(r"export|[A-Z_]+=.*", words[0]):
        words.pop(0)
    return words


def runs_of(command: str) -> Iterator[str]:
    """What a command runs, in the form of a key of ``RUN_BY``."""
    words = words_of(command)
    if words[:1] == ["make"]:
        yield from (f"make {word}" for word in words[1:] if re.fullmatch("[a-z0-9-]+", word))
    elif words[:2] == ["docker", "compose"]:
        yield " ".join(words[:3])
    elif words[:1] and Path(words[0]).name == "python" and words[1:2] == ["-m"]:
        yield " ".join(["python", *words[1:4]])


@every_page
def test_every_shown_make_target_exists(page: Path) -> None:
    for command in shown_commands(page):
        for run in runs_of(command):
            if run.startswith("make "):
                assert run.removeprefix("make ") in make_targets(), command


@every_page
def test_every_shown_module_can_be_run(page: Path) -> None:
    for command in shown_commands(page):
        words = words_of(command)
        if words[1:2] == ["-m"] and words[0].endswith("python") and len(words) > 2:
            name, arguments = words[2], words[3:]
            main = f"{name}.__main__" if is_package(name) else name
            assert find_spec(main), command
            module = import_module(_COMMANDS_OF.get(name, main))
            groups = [each for each in vars(module).values() if isinstance(each, click.Group)]
            if groups and arguments and not arguments[0].startswith("-"):
                assert any(arguments[0] in group.commands for group in groups), command


def is_package(name: str) -> bool:
    spec = find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


READERS = [page for page in pages() if page.parent == Path("docs") or page == Path("README.md")]


@pytest.mark.parametrize("page", [each for each in READERS if each not in FOLLOWED], ids=str)
def test_every_command_to_type_is_run_by_a_test(page: Path) -> None:
    for command in typed(page):
        runs = list(runs_of(command))
        assert runs or not words_of(command), f"no test runs {command}"
        for run in runs:
            assert run in RUN_BY, f"no test runs {run}"


@pytest.mark.parametrize("page", FOLLOWED, ids=str)
def test_every_section_with_something_to_do_is_followed_by_a_test(page: Path) -> None:
    sections = re.findall(r"(?ms)^## (.+?)$(.*?)(?=^## |\Z)", read(page))
    to_do = [title for title, text in sections if re.search(r"(?m)^```(sh|diff)$", text)]

    assert [each for each in to_do if f'"{each}"' not in read(FOLLOWED[page])] == []


@pytest.mark.parametrize("run", RUN_BY)
def test_the_test_that_runs_a_command_exists(run: str) -> None:
    where, _, test = RUN_BY[run].partition("::")
    text = read(where)

    if test:
        assert f"def {test}(" in text
        _, _, command = run.rpartition(" ")
        # The same command as behind the target.
        assert re.search(rf'"{command}\b', text)
        if run.startswith("make "):
            assert re.search(
                rf"(?m)^{command}:.*\n\t@\$\(RUN\) local_cluster {command}\b", read("Makefile")
            )
    else:
        assert run in text
