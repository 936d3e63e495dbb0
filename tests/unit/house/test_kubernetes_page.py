"""What docs/kubernetes.md shows, which is not run: at least its settings and addresses exist."""

from typing import Any

import yaml

from chassis.settings import variable_of
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
    assert SHOWN.keys() == {"Kafka", "Cluster", "Deployment", "ConfigMap"}


def test_every_variable_is_a_setting_of_the_service() -> None:
    settings = settings_of(service_named(SHOWN["ConfigMap"]["metadata"]["name"]))

    known = {variable_of(settings, each) for each in settings.model_fields}
    known |= {f"{each}_FILE" for each in known}
    assert SHOWN["ConfigMap"]["data"].keys() <= known


def test_the_probes_ask_the_service_at_its_port_and_it_has_time_to_stop() -> None:
    service = service_named(SHOWN["Deployment"]["metadata"]["name"])
    pod = SHOWN["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert container["args"] == [service.module]
    probes = [container[f"{each}Probe"]["httpGet"] for each in ("startup", "readiness", "liveness")]
    assert {each["port"] for each in probes} == {service.port}
    grace_s = settings_of(service).model_fields["shutdown_grace_s"].default
    assert pod["terminationGracePeriodSeconds"] > grace_s
