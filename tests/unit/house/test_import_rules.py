"""The import rules hold, and each of them says so when it is broken."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .repository import ROOT, configuration, packages

# One copy of the packages for all of them.
pytestmark = pytest.mark.xdist_group("import-rules")

RULES = {each["id"]: each for each in configuration()["tool"]["importlinter"]["contracts"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, to be spoilt."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in packages():
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return copy


def broken_rules(tree: Path) -> set[str]:
    """The names of the rules that import-linter finds broken."""
    linter = Path(sys.executable).with_name("lint-imports")
    said = subprocess.run(
        [linter, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True, check=False
    )
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", said.stdout, re.MULTILINE))
    assert set(verdicts) == {each["name"] for each in RULES.values()}, said.stdout + said.stderr
    broken = {name for name, verdict in verdicts.items() if verdict == "BROKEN"}
    assert said.returncode == (1 if broken else 0)
    return broken


@dataclass(frozen=True)
class Violation:
    """A module that should not import what it imports."""

    rule: str
    module: str
    imports: str

    def __str__(self) -> str:
        return f"{self.module} imports {self.imports}"

    @contextmanager
    def committed(self, tree: Path) -> Iterator[None]:
        file = tree / (self.module.replace(".", "/") + ".py")
        file.write_text(f"import {self.imports}\n")
        try:
            yield
        finally:
            file.unlink()


VIOLATIONS = [
    Violation("services-independent", "audit_service.spoilt", "users_service.domain.user"),
    Violation("services-independent", "gateway.spoilt", "local_cluster"),
    Violation("services-independent", "local_cluster.spoilt", "gateway"),
    Violation("services-independent", "verification.spoilt", "accounts_service.adapters.tables"),
    Violation("chassis-knows-no-service", "chassis.web.spoilt", "audit_service"),
    Violation("rooms", "chassis.persistence.spoilt", "chassis.web.app"),
    Violation("rooms", "chassis.consuming.spoilt", "chassis.publishing.relay"),
    Violation("rooms", "chassis.kafka.spoilt", "chassis.web.app"),
    Violation("rooms", "chassis.spoilt", "chassis"),
    Violation("contracts-know-nobody", "contracts.spoilt", "chassis"),
    Violation("layers", "users_service.domain.spoilt", "users_service.application"),
    Violation("layers", "accounts_service.application.spoilt", "accounts_service.adapters"),
    Violation("layers", "accounts_service.entrypoints.spoilt", "accounts_service.adapters"),
    Violation("fakes", "audit_service.spoilt", "chassis.testing"),
    Violation("fakes", "users_service.adapters.spoilt", "users_service.adapters.in_memory"),
    # What imports nothing wrong, but has no place among the layers.
    Violation("layers", "users_service.spoilt", "users_service"),
]


def test_they_hold(tree: Path) -> None:
    assert broken_rules(tree) == set()


@pytest.mark.parametrize("violation", VIOLATIONS, ids=str)
def test_one_that_is_broken_is_reported_and_no_other(tree: Path, violation: Violation) -> None:
    with violation.committed(tree):
        assert broken_rules(tree) == {RULES[violation.rule]["name"]}


def test_each_is_seen_to_fail() -> None:
    assert {violation.rule for violation in VIOLATIONS} == set(RULES)


def test_they_cover_every_package() -> None:
    tools = configuration()["tool"]

    assert set(tools["importlinter"]["root_packages"]) == packages()
    assert set(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages()
    assert packages() < set(tools["mypy"]["files"])
    services = packages() - {"chassis", "contracts"}
    assert set(RULES["services-independent"]["modules"]) == services
    assert set(RULES["chassis-knows-no-service"]["forbidden_modules"]) == services
    assert set(RULES["contracts-know-nobody"]["forbidden_modules"]) == services | {"chassis"}
    layered = {package for package in packages() if (ROOT / package / "domain").is_dir()}
    assert set(RULES["layers"]["containers"]) == layered
