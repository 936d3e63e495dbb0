"""What docs/kubernetes.md shows, which is not run: at least its settings and addresses exist."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.settings import ServiceSettings, read_settings, variable_of
from local_cluster.misspelt import settings_of
from services import service_named

from .repository import ROOT, blocks

PAGE = ROOT / "docs" / "kubernetes.md"
SHOWN: dict[str, Any] = {
    each["kind"]: each
    for block in blocks(PAGE)
    if block.language == "yaml"
    for each in yaml.safe_load_all(block.text)
}


def test_it_shows_kafka_postgresql_and_a_service() -> None:
    assert SHOWN.keys() == {"KafkaNodePool", "Kafka", "Cluster", "Deployment", "ConfigMap"}


def test_every_variable_is_a_setting_of_the_service() -> None:
    settings = settings_of(service_named(SHOWN["ConfigMap"]["metadata"]["name"]))

    known = {variable_of(settings, each) for each in settings.model_fields}
    known |= {f"{each}_FILE" for each in known}
    assert SHOWN["ConfigMap"]["data"].keys() <= known


def test_with_these_settings_production_starts_and_nothing_crosses_the_network_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = "postgresql://accounts@users-rw/accounts?sslmode=verify-full&sslrootcert=ca"
    for name, value in SHOWN["ConfigMap"]["data"].items():
        file = tmp_path / Path(value).name
        if name.endswith("_FILE"):
            file.write_text(database if "DATABASE" in name else "x" * 40)
        monkeypatch.setenv(name, str(file) if name.endswith("_FILE") else value)

    settings = read_settings(settings_of(service_named(SHOWN["ConfigMap"]["metadata"]["name"])))

    assert isinstance(settings, ServiceSettings)
    assert settings.environment == "production"
    assert not settings.network_is_trusted
    assert list(settings.in_the_clear()) == []


def test_the_probes_ask_the_service_at_its_port_and_it_has_time_to_stop() -> None:
    service = service_named(SHOWN["Deployment"]["metadata"]["name"])
    pod = SHOWN["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert container["args"] == [service.module]
    probes = [container[f"{each}Probe"]["httpGet"] for each in ("startup", "readiness", "liveness")]
    assert {(each["port"], each["scheme"]) for each in probes} == {(service.port, "HTTPS")}
    grace_s = settings_of(service).model_fields["shutdown_grace_s"].default
    assert pod["terminationGracePeriodSeconds"] > grace_s
