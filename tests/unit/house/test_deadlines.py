"""Tests wait with generous deadlines: on a busy machine a short one fails for no reason.

A long one costs nothing while tests pass. A wait for something not to happen is another matter:
``asyncio.wait`` with a time-out, after which the test asserts that it did not.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .repository import files, read

_SHORTEST_S = 20
# Where the time is part of what is tested: with a longer one the test would pass without its guard.
_PART_OF_THE_TEST = {
    ("tests/integration/chassis/consuming/test_group_commit.py", 8),
    ("tests/integration/chassis/consuming/test_worker.py", 5),
    ("tests/unit/chassis/kafka/test_client.py", 0),
    ("tests/unit/chassis/kafka/test_shown.py", 0),
}
_SUITES = ("unit", "integration", "e2e", "contract")
TESTS = [
    path
    for path in files()
    if path.suffix == ".py" and path.parts[0] == "tests" and path.parts[1] in _SUITES
]


def deadlines_in(source: str) -> Iterator[tuple[int, float]]:
    """Yield line and seconds of each wait whose end is a failure, in ``source``."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        arguments = [each.value for each in node.keywords if each.arg == "within_s"]
        if called == "asyncio.timeout":
            arguments += node.args
        elif called == "asyncio.wait_for":
            arguments += node.args[1:]
        for each in arguments:
            if isinstance(each, ast.Constant) and isinstance(each.value, int | float):
                yield node.lineno, each.value


def test_no_deadline_is_short() -> None:
    short = [
        f"{path}:{line}"
        for path in TESTS
        for line, seconds in deadlines_in(read(path))
        if seconds < _SHORTEST_S and (str(path), seconds) not in _PART_OF_THE_TEST
    ]

    assert short == []


def test_no_whole_standard_error_of_a_process_is_compared() -> None:
    """Under load Python's libraries have something to say there too."""
    compared = re.compile(r"\.stderr == .")
    sources = {path: read(path) for path in TESTS if path.name != Path(__file__).name}

    assert [
        str(path)
        for path, source in sources.items()
        if "subprocess" in source and compared.search(source)
    ] == []


def test_a_short_deadline_is_found() -> None:
    source = """
async def test():
    async with asyncio.timeout(5): ...
    await eventually(it_is, within_s=0.5)
    await asyncio.wait_for(it, 60)
"""

    assert [seconds for _, seconds in deadlines_in(source)] == [5, 0.5, 60]
