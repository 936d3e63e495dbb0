"""docs/operations.md lists every metric with its labels; its log lines and reasons exist."""

import ast
import re
from importlib import import_module
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from .repository import files, packages, read

PAGE = Path("docs/operations.md")
OURS = [path for path in files() if path.suffix == ".py" and path.parts[0] in packages()]
_KINDS = {each.__name__ for each in (Counter, Gauge, Histogram)}


def table(heading: str) -> list[list[str]]:
    """The rows of the first table whose first column has this heading."""
    rows = read(PAGE).partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" *`") for cell in row.strip("| ").split("|")] for row in rows]


def declared() -> dict[str, tuple[str, ...]]:
    """The labels of each metric of ours, by the name under which it is scraped."""
    found = {}
    for path in OURS:
        if not any(f" = {kind}(" in read(path) for kind in _KINDS):
            continue
        module = import_module(".".join(path.with_suffix("").parts))
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                suffix = "_total" if isinstance(metric, Counter) else ""
                found[f"{metric._name}{suffix}"] = metric._labelnames
    return found


def test_every_metric_is_listed_with_its_labels() -> None:
    listed = {name: tuple(filter(None, labels.split(", "))) for name, labels, _ in table("metric")}

    assert listed == declared()


def test_every_explained_log_line_is_in_the_code() -> None:
    written = {
        node.args[0].value
        for path in OURS
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"info", "warning", "error", "exception"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    explained = {name for cell, _ in table("line") for name in re.split("`, `", cell)}

    assert explained
    assert explained <= written


def test_every_explained_reason_is_in_the_code() -> None:
    code = "".join(read(path) for path in OURS)
    for reasons, _ in table("reason"):
        for reason in re.findall("`([^`]+)`", f"`{reasons}`"):
            # Its longest fixed part: variable parts are an ellipsis or a number.
            fixed = max(re.split(r"…|, |\d+(?: to \d+)?|\[.*", reason), key=len).strip()
            assert fixed in code, reason
