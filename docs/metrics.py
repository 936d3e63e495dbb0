"""Writes what is made from observability/metrics.toml: a table, alerts, their tests, a dashboard.

``make docs`` runs it.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from local_cluster.settings import REPOSITORY
from services import SERVICES

LIST: Final = REPOSITORY / "observability" / "metrics.toml"
PAGE: Final = REPOSITORY / "docs" / "operations.md"
_BEGIN: Final = "<!-- `make docs` writes this table from observability/metrics.toml. -->\n"
_END: Final = "<!-- Here it ends. -->\n"
_WRITTEN: Final = "# Written by `make docs` from metrics.toml.\n"
_LOOKED_AT: Final = "30m"
_PANELS_IN_A_ROW: Final = 3
_WIDTH, _HEIGHT = 24 // _PANELS_IN_A_ROW, 8

Name = Annotated[str, Field(pattern="^[a-z][a-z_]*$")]


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Alert(_Listed):
    """When someone must look, and series with which the alert fires after half an hour, or not."""

    name: Annotated[str, Field(pattern="^[A-Z][A-Za-z]*$")]
    expr: str
    for_: Annotated[str, Field(alias="for", pattern="^[0-9]+m$")]
    severity: Literal["page", "ticket"]
    summary: str
    chapter: str
    series: str
    fires: str
    quiet: str
    labels: Mapping[str, str]


class Metric(_Listed):
    """A metric of ours, as it is scraped."""

    name: Name
    kind: Literal["counter", "gauge", "histogram"]
    labels: Sequence[Name]
    what: str
    service: str | None = None
    alert: Alert | None = None


def metrics() -> Sequence[Metric]:
    """Return the list, without the metrics of services that are not declared."""
    declared = {None, *(service.name for service in SERVICES)}
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))["metric"]
    return [each for each in map(Metric.model_validate, listed) if each.service in declared]


def written() -> Mapping[Path, str]:
    """Return what each file that is made from the list should contain."""
    listed = metrics()
    directory = LIST.parent
    return {
        PAGE: _page(PAGE.read_text(encoding="utf-8"), listed),
        directory / "alerts.yml": _WRITTEN + _yaml(_rules(listed)),
        directory / "alerts_test.yml": _WRITTEN + _yaml(_tests(listed)),
        directory / "dashboard.json": json.dumps(_dashboard(listed), indent=2) + "\n",
    }


def _page(page: str, listed: Sequence[Metric]) -> str:
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = "".join(map(_row, listed))
    table = f"\n| metric | labels | what |\n|---|---|---|\n{rows}\n"
    return f"{before}{_BEGIN}{table}{_END}{after}"


def _row(metric: Metric) -> str:
    bold = "**" if metric.alert else ""
    labels = f"{', '.join(metric.labels)} " if metric.labels else ""
    return f"| {bold}`{metric.name}`{bold} | {labels}| {metric.what} |\n"


def _alerts(listed: Sequence[Metric]) -> Iterator[Alert]:
    return (metric.alert for metric in listed if metric.alert is not None)


def _annotations(alert: Alert) -> dict[str, str]:
    return {"summary": alert.summary, "chapter": f"docs/operations.md#{alert.chapter}"}


def _rules(listed: Sequence[Metric]) -> dict[str, Any]:
    rules = [
        {
            "alert": each.name,
            "expr": each.expr,
            "for": each.for_,
            "labels": {"severity": each.severity},
            "annotations": _annotations(each),
        }
        for each in _alerts(listed)
    ]
    return {"groups": [{"name": "onboarding", "rules": rules}]}


def _tests(listed: Sequence[Metric]) -> dict[str, Any]:
    def test(alert: Alert, values: str, expected: list[dict[str, Any]]) -> dict[str, Any]:
        looked = {"eval_time": _LOOKED_AT, "alertname": alert.name, "exp_alerts": expected}
        return {
            "interval": "1m",
            "input_series": [{"series": alert.series, "values": values}],
            "alert_rule_test": [looked],
        }

    tests = []
    for each in _alerts(listed):
        labels = {"severity": each.severity, **each.labels}
        expected = {"exp_labels": labels, "exp_annotations": _annotations(each)}
        tests += [test(each, each.fires, [expected]), test(each, each.quiet, [])]
    return {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}


def _dashboard(listed: Sequence[Metric]) -> dict[str, Any]:
    return {
        "title": "Onboarding",
        "uid": "onboarding",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": [_panel(number, metric) for number, metric in enumerate(listed)],
    }


def _panel(number: int, metric: Metric) -> dict[str, Any]:
    row, column = divmod(number, _PANELS_IN_A_ROW)
    by = ["job", *metric.labels]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": metric.name,
        "description": metric.what,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": _unit(metric)}, "overrides": []},
        "targets": [
            {
                "refId": "A",
                "expr": _shown(metric),
                "legendFormat": " ".join(f"{{{{{label}}}}}" for label in by),
            }
        ],
    }


def _unit(metric: Metric) -> str:
    if "_seconds" in metric.name:
        return "s"
    return "ops" if metric.kind == "counter" else "short"


def _shown(metric: Metric) -> str:
    by = ", ".join(["job", *metric.labels])
    match metric.kind:
        case "counter":
            return f"sum by ({by}) (rate({metric.name}[$__rate_interval]))"
        case "gauge":
            # Several processes of a service may report the same number.
            return f"max by ({by}) ({metric.name})"
        case "histogram":
            rate = f"rate({metric.name}_bucket[$__rate_interval])"
            return f"histogram_quantile(0.99, sum by (le, {by}) ({rate}))"


def _yaml(content: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, width=100, allow_unicode=True))


if __name__ == "__main__":
    for path, content in written().items():
        path.write_text(content, encoding="utf-8")
