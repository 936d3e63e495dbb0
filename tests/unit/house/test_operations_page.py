"""docs/operations.md names every metric, with its labels, and only log lines that are written."""

import ast
import re
from importlib import import_module
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from .repository import packages, read, tracked_files

PAGE = Path("docs/operations.md")
OURS = [path for path in tracked_files() if path.suffix == ".py" and path.parts[0] in packages()]
_KINDS = {each.__name__ for each in (Counter, Gauge, Histogram)}


def table(heading: str) -> list[list[str]]:
    """The rows of the first table whose head begins so."""
    rows = read(PAGE).partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" *`") for cell in row.strip("| ").split("|")] for row in rows]


def declared() -> dict[str, tuple[str, ...]]:
    """Each metric of ours by the name it is scraped under, and its labels."""
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


def test_it_lists_every_metric_with_its_labels() -> None:
    listed = {name: tuple(filter(None, labels.split(", "))) for name, labels, _ in table("metric")}

    assert listed == declared()


def test_the_lines_it_explains_are_written() -> None:
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


def test_the_reasons_it_explains_are_given() -> None:
    said = "".join(read(path) for path in OURS)
    for reasons, _ in table("reason"):
        for reason in re.findall("`([^`]+)`", f"`{reasons}`"):
            # The fixed part of it: what comes from the moment is an ellipsis or a number.
            fixed = max(re.split(r"…|, |\d+(?: to \d+)?|\[.*", reason), key=len).strip()
            assert fixed in said, reason
