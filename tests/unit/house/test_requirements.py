"""Every dependency is pinned by version and hash, and the same with and without the tests."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .repository import configuration, read

PROJECT = configuration()["project"]
FILES = ["requirements.txt", "requirements-dev.txt", "requirements-image.txt"]


def locked(file: str) -> set[tuple[str, str]]:
    """Each package with its installed version."""
    return {pinned(entry.split("--hash", 1)[0].strip()) for entry in entries(file)}


def pinned(line: str) -> tuple[str, str]:
    requirement = Requirement(line)
    (specifier,) = requirement.specifier
    assert (specifier.operator, requirement.url) == ("==", None)
    return canonicalize_name(requirement.name), specifier.version


def entries(file: str) -> list[str]:
    """One entry per package, its continuation lines joined, without comments."""
    lines = re.sub(r"(?m)^[ \t]*#.*\n", "", read(file))
    return lines.replace("\\\n", " ").strip().splitlines()


def test_the_dependencies_of_the_product_have_the_same_version_in_the_tests() -> None:
    product = locked("requirements.txt")

    assert product
    assert product <= locked("requirements-dev.txt")


def test_the_image_has_the_dependencies_of_the_product_and_nothing_of_the_local_cluster() -> None:
    image = locked("requirements-image.txt")
    cluster = {pinned(line) for line in PROJECT["optional-dependencies"]["cluster"]}

    assert {pinned(line) for line in PROJECT["dependencies"]} <= image <= locked("requirements.txt")
    assert image.isdisjoint(cluster)


@pytest.mark.parametrize("file", FILES)
def test_every_package_has_its_hashes(file: str) -> None:
    for entry in entries(file):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


@pytest.mark.parametrize("file", FILES)
def test_no_requirements_file_names_an_index(file: str) -> None:
    text = read(file)

    assert "://" not in text
    # Any option beside the hashes: an index, a link, another file.
    assert re.findall(r"(?m)^\s*-(?!-hash=)", text) == []


def test_a_declared_dependency_is_pinned_exactly_and_locked_in_that_version() -> None:
    extras = PROJECT["optional-dependencies"]
    product = {pinned(line) for line in [*PROJECT["dependencies"], *extras["cluster"]]}

    assert product <= locked("requirements.txt")
    assert {pinned(line) for line in extras["dev"]} <= locked("requirements-dev.txt")
