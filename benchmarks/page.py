"""Draws docs/benchmarks.md from a run's results."""

from pathlib import Path

from benchmarks.results import Result


def draw(result: Result, directory: Path) -> Path:
    """Write the page and its pictures into a directory, and return where the page is."""
    target = directory / "benchmarks.md"
    target.write_text(f"# Benchmarks\n\n{result.measured_at}\n", encoding="utf-8")
    return target
