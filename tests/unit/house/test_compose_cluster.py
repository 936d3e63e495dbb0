"""compose.cluster.yml fits settings, secrets and the catalogue, and asks for production."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.settings import exit_if_in_the_clear
from contracts.acls import VERIFICATION, acls_of
from contracts.topics import TOPICS
from services import WITH_DATABASE, DeclaredService
from services.secrets import write_secrets
from tests.compose.system import CLUSTER

from .repository import read
from .test_compose import CONTAINERS, PROCESSES, settings_from

# A tag of compose's own, which matters only to what both files say.
FILE = yaml.safe_load(read("compose.cluster.yml").replace("!override ", ""))
CHANGED: dict[str, dict[str, Any]] = FILE["services"]
BROKERS = {name: each for name, each in CHANGED.items() if name in CLUSTER.brokers}
# A copy may have declared another one, or fewer.
SERVICES = [each for each in PROCESSES if each.name in CHANGED]


def environment_of(name: str) -> dict[str, Any]:
    """What a container gets from both files."""
    merged: dict[str, Any] = {}
    for each in (CONTAINERS.get(name, {}), CHANGED[name]):
        merged |= each.get("environment", {})
    return merged


def secrets(directory: Path) -> None:
    write_secrets(directory, postgres="postgres:5432", brokers=CLUSTER.brokers)


@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_a_process_runs_as_in_production_with_settings_that_it_takes(
    service: DeclaredService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets(tmp_path)
    environment = environment_of(service.name)

    settings = settings_from(environment, service, monkeypatch, tmp_path)

    assert settings.environment == "production"
    exit_if_in_the_clear(settings)


@pytest.mark.parametrize(
    "service", [each for each in SERVICES if each in WITH_DATABASE], ids=lambda each: each.name
)
def test_a_service_signs_in_to_each_broker_under_its_own_name_and_its_job_too(
    service: DeclaredService,
) -> None:
    environment = environment_of(service.name)

    assert environment[f"{service.prefix}KAFKA_SASL_USERNAME"] == service.name
    assert environment[f"{service.prefix}KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
    assert environment[f"{service.prefix}KAFKA_BOOTSTRAP"] == ",".join(
        f"{each}:9094" for each in CLUSTER.brokers
    )
    assert CHANGED[f"prepare-{service.name}"] == {
        "environment": CHANGED[service.name]["environment"]
    }


@pytest.mark.parametrize("name", CHANGED)
def test_a_container_reads_the_secrets_that_it_mounts(name: str, tmp_path: Path) -> None:
    secrets(tmp_path)
    of_both = [CONTAINERS.get(name, {}), CHANGED[name]]
    named = re.findall(r"/run/secrets/(\w+)/(\w+)", f"{CHANGED[name]} {environment_of(name)}")
    volumes = [volume for each in of_both for volume in each.get("volumes", ())]
    mounted = re.findall(r"(\w+)-secrets:/run/secrets/(\w+):ro", str(volumes))

    assert {(reader, reader) for reader, _ in named} <= set(mounted)
    assert all((tmp_path / reader / file).is_file() for reader, file in named)


def test_each_login_of_the_catalogue_gets_its_password() -> None:
    (script,) = CHANGED["topics"]["command"]
    here = {VERIFICATION, *(each.name for each in SERVICES)}

    given = set(
        re.findall(r"--password-file (\w+) /run/secrets/administrator/password_of_(\w+)", script)
    )
    assert given == {(each.login, each.login) for each in acls_of() if each.login in here}


def test_there_are_as_many_brokers_as_the_catalogue_asks_for_and_each_is_one_of_them() -> None:
    replicas = max(topic.replication_factor for topic in TOPICS)
    in_sync = max(topic.min_insync_replicas for topic in TOPICS)

    assert len(BROKERS) == len(CLUSTER.brokers) == replicas
    for number, (name, broker) in enumerate(BROKERS.items(), start=1):
        environment = (
            environment_of(name if name in CONTAINERS else "kafka") | broker["environment"]
        )
        assert int(environment["KAFKA_NODE_ID"]) == number
        assert f"{number}@{name}:9093" in environment["KAFKA_CONTROLLER_QUORUM_VOTERS"]
        assert f"CLIENTS://{name}:9094" in environment["KAFKA_ADVERTISED_LISTENERS"]
        assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == in_sync
        assert f"--broker={name}" in CHANGED["secrets"]["command"]
        assert broker.get("ports") or CONTAINERS[name]["ports"]


def test_no_client_reaches_a_broker_in_the_clear_or_without_signing_in() -> None:
    for broker in BROKERS.values():
        environment = broker["environment"]
        protocols = dict(
            each.split(":")
            for each in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
        )
        assert {each.partition("://")[0] for each in environment["KAFKA_LISTENERS"].split(",")} == (
            protocols.keys()
        )
        for listener, protocol in protocols.items():
            certified = f"KAFKA_LISTENER_NAME_{listener}_SSL_CLIENT_AUTH"
            assert protocol == "SASL_SSL" or (
                protocol == "SSL" and environment[certified] == "required"
            )
