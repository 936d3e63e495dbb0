"""What is installed is pinned: exactly, by hash, and the same with and without the tests."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .repository import configuration, read

PROJECT = configuration()["project"]


def locked(file: str) -> set[tuple[str, str]]:
    """Each package and the version that is installed of it."""
    return {pinned(entry.split("--hash", 1)[0].strip()) for entry in entries(file)}


def pinned(line: str) -> tuple[str, str]:
    requirement = Requirement(line)
    (specifier,) = requirement.specifier
    assert (specifier.operator, requirement.url) == ("==", None)
    return canonicalize_name(requirement.name), specifier.version


def entries(file: str) -> list[str]:
    """One entry a package, its continuation lines joined, without comments."""
    lines = re.sub(r"(?m)^[ \t]*#.*\n", "", read(file))
    return lines.replace("\\\n", " ").strip().splitlines()


def test_what_the_product_runs_on_is_among_what_its_tests_need_in_the_same_version() -> None:
    product = locked("requirements.txt")

    assert product
    assert product <= locked("requirements-dev.txt")


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_package_has_its_hashes(file: str) -> None:
    for entry in entries(file):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_where_packages_come_from_is_the_installers_business(file: str) -> None:
    text = read(file)

    assert "://" not in text
    # Any option beside the hashes: an index, a link, another file.
    assert re.findall(r"(?m)^\s*-(?!-hash=)", text) == []


def test_what_is_declared_is_pinned_exactly_and_locked_as_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    product = {pinned(line) for line in [*PROJECT["dependencies"], *extras["cluster"]]}

    assert product <= locked("requirements.txt")
    assert {pinned(line) for line in extras["dev"]} <= locked("requirements-dev.txt")
