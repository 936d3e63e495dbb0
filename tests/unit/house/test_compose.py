"""docker-compose.yml fits settings and secrets, and gives no container more than it needs.

So do the files that override parts of it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.persistence import tables
from chassis.settings import ProcessSettings, Role, variable_of
from local_cluster.misspelt import settings_of
from local_cluster.settings import Settings
from local_cluster.topology import SLACK_STAND_IN
from services import SERVICES, DeclaredService
from services.secrets import write_secrets

from .repository import read

FILE = yaml.safe_load(read("docker-compose.yml"))
CONTAINERS: dict[str, dict[str, Any]] = FILE["services"]
OURS = {
    name: each for name, each in CONTAINERS.items() if each["image"] == "kafka-native-onboarding"
}
# A copy may have declared another one, or fewer.
PROCESSES = [each for each in SERVICES if each.name in CONTAINERS]
JOBS = [name for name in OURS if "restart" not in OURS[name]]
ROLES_APART: dict[str, dict[str, Any]] = yaml.safe_load(read("compose.roles.yml"))["services"]
DEBEZIUM: dict[str, dict[str, Any]] = yaml.safe_load(read("compose.debezium.yml"))["services"]
#: What those files add, whole.
ADDED = {name: each for name, each in DEBEZIUM.items() if "image" in each}

every_process = pytest.mark.parametrize("service", PROCESSES, ids=lambda each: each.name)
every_container = pytest.mark.parametrize("name", CONTAINERS)
every_service = pytest.mark.parametrize(
    "service", [each for each in PROCESSES if each.database], ids=lambda each: each.name
)


def published() -> list[str]:
    return [port for each in CONTAINERS.values() for port in each.get("ports", ())]


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_can_do_little(name: str) -> None:
    container = OURS[name]

    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    # The secrets belong to root, so that no process changes them; it has no network.
    assert ("user" in container) == (container.get("network_mode") == "none")


@pytest.mark.parametrize("name", CONTAINERS | ADDED)
def test_a_container_is_limited_and_has_no_privileges(name: str) -> None:
    container = (CONTAINERS | ADDED)[name]

    assert {"mem_limit", "cpus"} <= container.keys()
    assert {"max-size", "max-file"} <= container["logging"]["options"].keys()
    assert container.keys().isdisjoint({"privileged", "cap_add", "pid", "ipc", "devices"})
    assert not any(str(each).startswith(("/", ".")) for each in container.get("volumes", ()))


@every_container
def test_what_stays_up_says_how_it_is_and_starts_again(name: str) -> None:
    container = CONTAINERS[name]
    if name in JOBS:
        return

    assert container["restart"] == "unless-stopped"
    assert container["healthcheck"]["test"][0] == "CMD"
    grace_s = int(container["stop_grace_period"].removesuffix("s"))
    assert grace_s > ProcessSettings.model_fields["shutdown_grace_s"].default


@pytest.mark.parametrize("job", [name for name in JOBS if "profiles" not in OURS[name]])
def test_a_job_is_waited_for(job: str) -> None:
    """``up --wait`` fails for one that ends and that nothing depends on."""
    ends = {"condition": "service_completed_successfully"}

    assert ends in [each.get("depends_on", {}).get(job) for each in CONTAINERS.values()]


def test_ports_are_on_loopback_and_are_not_those_of_the_local_cluster() -> None:
    of_local_cluster = {Settings.model_fields[name].default for name in Settings.ports()}
    ports = [re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-(\d+)\}:\d+", each) for each in published()]

    assert ports
    assert all(ports), published()
    assert of_local_cluster.isdisjoint(int(each[1]) for each in ports if each)


def test_images_of_others_are_pinned() -> None:
    images = {each["image"] for name, each in (CONTAINERS | ADDED).items() if name not in OURS}

    assert images
    assert all(re.search(r":v?\d", image) for image in images)


@every_process
def test_a_process_is_asked_whether_it_is_ready_itself(service: DeclaredService) -> None:
    container = CONTAINERS[service.name]

    assert container["command"] == [service.module]
    assert container["healthcheck"]["test"] == ["CMD", "python", "-m", service.module, "healthy"]


@every_process
def test_its_environment_has_what_it_needs_and_nothing_that_is_no_setting(
    service: DeclaredService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_secrets(tmp_path, postgres="postgres:5432")

    settings_from(CONTAINERS[service.name]["environment"], service, monkeypatch, tmp_path)


def settings_from(
    environment: dict[str, Any],
    service: DeclaredService,
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
) -> ProcessSettings:
    """Read a process's settings from a container's environment, which has nothing else.

    :param directory: what ``services.secrets`` wrote
    """
    for name, value in environment.items():
        assert name.startswith(service.prefix)
        unless_set = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", str(value))
        monkeypatch.setenv(name, unless_set.replace("/run/secrets", str(directory)))
    for other in SERVICES:
        # Of one that is declared and in no container yet, nobody has the address.
        if other not in PROCESSES:
            monkeypatch.setenv(f"{service.prefix}{other.prefix}URL", "http://127.0.0.1")
    settings = settings_of(service)
    known = {variable_of(settings, each) for each in settings.model_fields}
    assert environment.keys() <= known | {f"{each}_FILE" for each in known}
    return settings()


def test_grafana_reads_prometheus_and_has_the_dashboard() -> None:
    sources = yaml.safe_load(read("observability/grafana.yml"))["datasources"]
    (provider,) = yaml.safe_load(read("observability/grafana-dashboards.yml"))["providers"]
    mounted = {each["target"]: each["source"] for each in CONTAINERS["grafana"]["configs"]}

    for each in sources:
        host = re.fullmatch(r"http://(\w+):\d+", each["url"])
        assert host
        assert host[1] in CONTAINERS
    types = {each["type"] for each in sources}
    variables = json.loads(read("observability/dashboard.json"))["templating"]["list"]
    assert {each["query"] for each in variables} <= types
    path = f"{provider['options']['path']}/onboarding.json"
    assert FILE["configs"][mounted[path]]["file"] == "observability/dashboard.json"


@every_container
def test_a_container_reads_the_secrets_that_it_mounts(name: str, tmp_path: Path) -> None:
    write_secrets(tmp_path, postgres="postgres:5432")
    container = CONTAINERS[name]
    named = re.findall(r"/run/secrets/(\w+)/(\w+)", str(container))
    mounted = re.findall(r"(\w+)-secrets:/run/secrets/(\w+):ro", str(container.get("volumes", "")))

    assert {(reader, reader) for reader, _ in named} == set(mounted)
    assert all((tmp_path / reader / file).is_file() for reader, file in named)


@every_service
def test_with_roles_apart_each_role_of_a_service_is_in_a_container_of_its_own(
    service: DeclaredService,
) -> None:
    containers = {service.name} | {
        name
        for name, each in ROLES_APART.items()
        if each.get("extends") == {"file": "docker-compose.yml", "service": service.name}
    }

    roles = {name: ROLES_APART[name]["environment"] for name in containers}
    # Others reach it by the service's own name.
    assert roles[service.name] == {f"{service.prefix}ROLES": Role.API}
    assert sorted(
        (name, *each.items()) for name, each in roles.items() if name != service.name
    ) == [
        (f"{service.name}-{role}", (f"{service.prefix}ROLES", role)) for role in ("agents", "relay")
    ]


@every_service
def test_with_debezium_a_service_has_a_slot_and_no_relay(service: DeclaredService) -> None:
    slot = f"outbox_{service.name}"

    assert DEBEZIUM[service.name]["environment"] == {
        f"{service.prefix}ROLES": "api,agents",
        f"{service.prefix}OUTBOX_SLOT": slot,
    }
    for container in ("slots", "debezium"):
        (command,) = DEBEZIUM[container]["command"]
        (names,) = re.findall(r"for each in (.*); do", command)
        assert service.name in names.split()
    connector = read("debezium/connector.json").replace("SERVICE", service.name)
    assert json.loads(connector)["slot.name"] == slot


def test_debezium_takes_topic_key_and_value_from_columns_that_the_outbox_has() -> None:
    connector = json.loads(read("debezium/connector.json"))

    columns = {
        name.rpartition(".")[2]: value
        for name, value in connector.items()
        if name.startswith("transforms.outbox.")
        and name.endswith((".id", ".key", ".payload", "field"))
    }
    assert columns == {
        "field": tables.outbox.c.aggregatetype.name,
        "id": tables.outbox.c.id.name,
        "key": tables.outbox.c.aggregateid.name,
        "payload": tables.outbox.c.payload.name,
    }


@pytest.mark.parametrize("override", ["compose.roles.yml", "compose.debezium.yml"])
def test_an_override_is_of_containers_that_there_are(override: str) -> None:
    overridden = yaml.safe_load(read(override))["services"]

    for name, each in overridden.items():
        if "image" not in each:
            assert each.get("extends", {}).get("service", name) in CONTAINERS


@pytest.mark.parametrize(
    ("file", "containers"),
    [("prometheus.yml", CONTAINERS), ("prometheus-roles.yml", CONTAINERS | ROLES_APART)],
)
def test_prometheus_scrapes_every_process_at_the_port_that_says_how_it_is(
    file: str, containers: dict[str, Any]
) -> None:
    jobs = yaml.safe_load(read(f"observability/{file}"))["scrape_configs"]

    found = {
        (job["job_name"], name, each["port"])
        for job in jobs
        for each in job["dns_sd_configs"]
        for name in each["names"]
    }
    scraped = [each for each in PROCESSES if each.name != SLACK_STAND_IN]
    expected = {
        (each.name, name, each.health_listener[1])
        for each in scraped
        for name in (each.name, f"{each.name}-relay", f"{each.name}-agents")
        if name in containers
    }
    # One that a copy has taken out has no address, and Prometheus waits for it.
    known = {each.name for each in scraped}
    assert {each for each in found if each[0] in known} == expected
