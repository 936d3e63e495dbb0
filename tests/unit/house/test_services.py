"""Each service is declared once, and what must name it names it; a failure says what to add."""

import subprocess
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from contracts.topics import TOPICS
from local_cluster.misspelt import settings_of
from services import SERVICES, WITH_DATABASE, DeclaredService

from .repository import ROOT, configuration, files, packages

TOOLS = configuration()["tool"]
RULES = {each["id"]: each for each in TOOLS["importlinter"]["contracts"]}
DECLARED = "services/services.toml"

every_service = pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
every_owner = pytest.mark.parametrize("service", WITH_DATABASE, ids=lambda each: each.name)


def runnable() -> set[str]:
    """The packages of services: those that ``python -m`` runs, and that are named as one."""
    return {
        path.parts[0]
        for path in files()
        if path.parts[0].endswith("_service") and path.parts[1:] == ("__main__.py",)
    }


def missing_lines(found: set[str], declared: set[str], rules: Any) -> Iterator[str]:
    """What must be added where for these packages: one line each.

    :param declared: the packages in ``services.toml``
    :param rules: the tables below ``tool`` of ``pyproject.toml``
    """
    for package in sorted({each for each in found if each.endswith("_service")} - declared):
        name = package.removesuffix("_service")
        yield f'{DECLARED}: add  [{name}], and below it  module = "{package}"  and the other keys'
    linter = rules["importlinter"]
    for package in sorted(found - set(linter["root_packages"])):
        yield f'pyproject.toml, [tool.importlinter] root_packages: add  "{package}",'
    layers = next(each for each in linter["contracts"] if each["id"] == "packages")["layers"]
    layered = {each.strip() for layer in layers for each in layer.split("|")}
    for package in sorted(found - layered):
        yield f'pyproject.toml, id = "packages", layers: add  | {package}'
    for package in sorted(found):
        if not any(fnmatch(package, each) for each in rules["mypy"]["files"]):
            yield f'pyproject.toml, [tool.mypy] files: add  "{package}"'
        wheel = rules["hatch"]["build"]["targets"]["wheel"]["include"]
        if not any(fnmatch(f"/{package}", each) for each in wheel):
            yield f'pyproject.toml, [tool.hatch.build.targets.wheel] include: add  "/{package}"'


def surplus_lines(found: set[str], declared: set[str], rules: Any) -> Iterator[str]:
    """What names a package that is not there."""
    for package in sorted(declared - found):
        yield f"{DECLARED}: {package} is no package of the repository"
    for package in sorted(set(rules["importlinter"]["root_packages"]) - found):
        yield f"pyproject.toml, [tool.importlinter] root_packages: remove  {package}"


def test_every_package_is_named_wherever_it_must_be() -> None:
    declared = {service.package for service in SERVICES}

    lines = [
        *missing_lines(packages(), declared, TOOLS),
        *surplus_lines(packages(), declared, TOOLS),
    ]
    assert not lines, "\n".join(lines)


def test_a_new_package_is_missing_until_it_is_named() -> None:
    lines = list(missing_lines({"new_service"}, set(), TOOLS))

    assert lines == [
        f'{DECLARED}: add  [new], and below it  module = "new_service"  and the other keys',
        'pyproject.toml, [tool.importlinter] root_packages: add  "new_service",',
        'pyproject.toml, id = "packages", layers: add  | new_service',
    ]
    assert len(list(missing_lines({"ledger"}, set(), TOOLS))) == 4
    assert len(list(surplus_lines(packages(), {"gone_service"}, TOOLS))) == 1


def test_a_package_that_git_does_not_know_yet_counts(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)  # noqa: S607
    new = tmp_path / "loyalty_service" / "__init__.py"
    new.parent.mkdir()
    new.touch()

    assert packages(tmp_path) == {"loyalty_service"}


def test_every_service_with_layers_or_fakes_is_under_their_rules() -> None:
    layered = {each for each in packages() if (ROOT / each / "domain").is_dir()}
    fakes = {
        ".".join(path.with_suffix("").parts)
        for path in files()
        if path.name == "in_memory.py" and path.parts[0] in packages()
    }

    assert set(RULES["layers"]["containers"]) == layered
    assert set(RULES["fakes"]["protected_modules"]) == fakes | {"chassis.testing"}
    assert runnable() <= {service.package for service in SERVICES}


@every_service
def test_it_listens_on_the_declared_port_unless_it_is_set(service: DeclaredService) -> None:
    fields = settings_of(service).model_fields
    default = fields["http_port"].default

    assert default == service.port, f"in {service.package}/settings.py, or port in {DECLARED}"
    if service.operators_port is not None:
        assert fields["operators_port"].default == service.operators_port


@every_service
def test_its_settings_begin_with_its_name(service: DeclaredService) -> None:
    assert settings_of(service).model_config["env_prefix"] == service.prefix


@every_service
def test_the_settings_that_others_give_it_exist(service: DeclaredService) -> None:
    fields = settings_of(service).model_fields

    assert {name.lower() for name in service.settings} <= set(fields), DECLARED


def test_no_port_is_declared_twice() -> None:
    ports = [service.port for service in SERVICES]
    ports += [each.operators_port for each in SERVICES if each.operators_port is not None]

    assert len(ports) == len(set(ports))


@every_owner
def test_its_code_has_the_declared_name_and_publishes_the_declared_aggregates(
    service: DeclaredService,
) -> None:
    code = import_module(f"{service.package}.bootstrap").SERVICE
    published = {each.topic.name: each.table.name for each in code.aggregates}

    assert (code.name, code.package) == (service.name, service.package)
    assert dict(service.aggregates) == published, f"{DECLARED}, [{service.name}.aggregates]"


@every_owner
def test_it_is_a_declared_consumer_of_what_it_reads_and_of_nothing_else(
    service: DeclaredService,
) -> None:
    code = import_module(f"{service.package}.bootstrap").SERVICE
    read = {each.topic.name for each in code.subscribers(code.settings.model_construct())}
    declared = {topic.name for topic in TOPICS if service.name in topic.consumers}

    lines = [
        f'contracts/topics.py, {topic}: add "{service.name}" to its consumers'
        for topic in sorted(read - declared)
    ]
    lines += [
        f'contracts/topics.py, {topic}: remove "{service.name}" from its consumers'
        for topic in sorted(declared - read)
    ]
    assert not lines, "\n".join(lines)


@every_owner
def test_it_has_a_readme_and_tests(service: DeclaredService) -> None:
    wanted: Sequence[Path] = (
        Path(service.package, "README.md"),
        Path("tests/unit", service.package),
        Path("tests/integration", service.package),
    )

    assert [path for path in wanted if not any(f.is_relative_to(path) for f in files())] == []
