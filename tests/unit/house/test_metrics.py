"""The page, the alerts and the dashboard are made from one list, and ask for our metrics only."""

import json
import re
import shutil
import subprocess

import pytest

from docs.metrics import LIST, PAGE, Alert, metrics, written

from .repository import read
from .test_operations_page import declared

LISTED = metrics()
ALERTS = [metric.alert for metric in LISTED if metric.alert is not None]
#: Where there is one on this machine.
PROMTOOL = [found for found in (shutil.which("promtool"),) if found is not None]

_OURS = re.compile(rf"\b(?:{'|'.join(sorted({name.split('_')[0] for name in declared()}))})_\w+")


def asked_for(query: str) -> set[str]:
    """The names of metrics in a query."""
    without_strings = re.sub(r'"[^"]*"', "", query)
    return {name.removesuffix("_bucket") for name in _OURS.findall(without_strings)}


def test_what_is_made_from_the_list_is_up_to_date() -> None:
    for path, content in written().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run make docs"


def test_every_metric_is_listed_as_what_it_is() -> None:
    assert {each.name: tuple(each.labels) for each in LISTED} == declared()
    for each in LISTED:
        assert (each.kind == "counter") == each.name.endswith("_total"), each.name


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_asks_for_metrics_of_ours_and_names_a_chapter(alert: Alert) -> None:
    titles = re.findall(r"(?m)^#+ (.+)$", read(PAGE))

    assert asked_for(alert.expr)
    assert asked_for(alert.expr) <= declared().keys()
    assert alert.chapter in {
        re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in titles
    }


def test_the_dashboard_has_a_panel_for_each_metric_and_none_overlaps() -> None:
    panels = json.loads((LIST.parent / "dashboard.json").read_text(encoding="utf-8"))["panels"]

    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert [asked_for(query) for query in queries] == [{each.name} for each in LISTED]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels)


@pytest.mark.parametrize("promtool", PROMTOOL)
def test_each_alert_fires_when_it_should_and_only_then(promtool: str) -> None:
    for arguments in (
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        ran = subprocess.run(
            [promtool, *arguments], cwd=LIST.parent, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
