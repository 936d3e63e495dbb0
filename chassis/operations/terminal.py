"""How results look on a terminal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command prints.

    :param warning: goes to standard error
    :param failed: the command ends with exit code 1
    """

    text: str
    warning: str | None = None
    failed: bool = False


def done(text: str) -> Callable[[None], Shown]:
    """Show this text for an act that returns nothing."""
    return lambda _: Shown(text)


def fields(body: BaseModel, *, without: str | None = None) -> Shown:
    """Show all fields of one thing, one a line; what is JSON itself comes below them, indented."""
    values = body.model_dump(mode="json", exclude={without} if without else None)
    blocks = {name: text for name, value in values.items() if (text := _indented(value))}
    width = max(map(len, values))
    lines = [
        f"{name.replace('_', ' ').ljust(width)}  {_cell(value)}"
        for name, value in values.items()
        if name not in blocks
    ]
    below = [f"{name.replace('_', ' ')}:\n{text}" for name, text in blocks.items()]
    return Shown("\n".join(lines + below))


def _indented(value: Any) -> str | None:
    """Return JSON on several lines; None of what is none, or is short."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = orjson.loads(value)
        except ValueError:
            return None
    if not value or not isinstance(value, dict | list):
        return None
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def page(rows: Sequence[BaseModel], columns: Sequence[str], following: object | None) -> Shown:
    """Show a page of a list, and the option that gets the following page."""
    text = table(rows, columns)
    return Shown(text if following is None else f"{text}\nmore: --after {following}")


def table(rows: Iterable[BaseModel], columns: Sequence[str]) -> str:
    """Return these fields of each row, one row a line."""
    lines = [[name.replace("_", " ").upper() for name in columns]]
    for row in rows:
        values = row.model_dump(mode="json")
        lines.append([_cell(values[name]) for name in columns])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)
