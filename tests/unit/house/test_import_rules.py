"""The import rules hold, and each is reported when it is broken."""

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

# All tests share one copy of the packages.
pytestmark = pytest.mark.xdist_group("import-rules")

RULES = {each["id"]: each for each in configuration()["tool"]["importlinter"]["contracts"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, to be changed."""
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
    completed = subprocess.run(
        [linter, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True, check=False
    )
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", completed.stdout, re.MULTILINE))
    output = completed.stdout + completed.stderr
    assert set(verdicts) == {each["name"] for each in RULES.values()}, output
    broken = {name for name, verdict in verdicts.items() if verdict == "BROKEN"}
    assert completed.returncode == (1 if broken else 0)
    return broken


@dataclass(frozen=True)
class ForbiddenImport:
    """A module, and an import that a rule forbids."""

    rule: str
    module: str
    imports: str

    def __str__(self) -> str:
        return f"{self.module} imports {self.imports}"

    @contextmanager
    def applied(self, tree: Path) -> Iterator[None]:
        file = tree / (self.module.replace(".", "/") + ".py")
        file.write_text(f"import {self.imports}\n")
        try:
            yield
        finally:
            file.unlink()


FORBIDDEN = [
    ForbiddenImport("packages", "audit_service.spoilt", "users_service.domain.user"),
    ForbiddenImport("packages", "gateway.spoilt", "local_cluster"),
    ForbiddenImport("packages", "local_cluster.spoilt", "gateway"),
    ForbiddenImport("packages", "verification.spoilt", "accounts_service.adapters.tables"),
    ForbiddenImport("packages", "chassis.web.spoilt", "audit_service"),
    ForbiddenImport("rooms", "chassis.persistence.spoilt", "chassis.web.app"),
    ForbiddenImport("rooms", "chassis.consuming.spoilt", "chassis.publishing.relay"),
    ForbiddenImport("rooms", "chassis.kafka.spoilt", "chassis.web.app"),
    ForbiddenImport("rooms", "chassis.spoilt", "chassis"),
    ForbiddenImport("packages", "contracts.spoilt", "chassis"),
    ForbiddenImport("packages", "contracts.spoilt", "services"),
    ForbiddenImport("packages", "services.spoilt", "users_service"),
    ForbiddenImport("layers", "users_service.domain.spoilt", "users_service.application"),
    ForbiddenImport("layers", "accounts_service.application.spoilt", "accounts_service.adapters"),
    ForbiddenImport("layers", "accounts_service.entrypoints.spoilt", "accounts_service.adapters"),
    ForbiddenImport("fakes", "audit_service.spoilt", "chassis.testing"),
    ForbiddenImport("fakes", "users_service.adapters.spoilt", "users_service.adapters.in_memory"),
    # It imports nothing that is forbidden, but is in no layer.
    ForbiddenImport("layers", "users_service.spoilt", "users_service"),
]


def test_the_rules_hold(tree: Path) -> None:
    assert broken_rules(tree) == set()


@pytest.mark.parametrize("forbidden", FORBIDDEN, ids=str)
def test_a_broken_rule_is_reported_and_no_other(tree: Path, forbidden: ForbiddenImport) -> None:
    with forbidden.applied(tree):
        assert broken_rules(tree) == {RULES[forbidden.rule]["name"]}


def test_each_rule_is_broken_once() -> None:
    assert {forbidden.rule for forbidden in FORBIDDEN} == set(RULES)
