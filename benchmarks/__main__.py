"""``python -m benchmarks``: how fast it is, beside bare programs and beside other products.

Starts a cluster of its own. Without ``--full`` it takes minutes and leaves out the other products.
The last line has each ratio against its goal.

Exit codes: 0 no goal is missed by more than its spread; 1 one is, or a side failed; 2 a name or a
file is wrong; 130 stopped.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import page, results
from benchmarks.display import show
from benchmarks.figure import Figure
from benchmarks.figures import FIGURES
from benchmarks.results import Result
from benchmarks.runner import measure_all
from benchmarks.words import last_line
from local_cluster.directories import make_cluster_directory
from local_cluster.errors import ClusterError
from local_cluster.settings import REPOSITORY

FAILED, WRONG, STOPPED = 1, 2, 130
_WIDTH_OF_A_FILE: Final = 160


class _Wrong(Exception):
    """The arguments make no sense; the message says why, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    asked = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    try:
        if asked.command == "page":
            return _draw(asked.file, console)
        if asked.list:
            return _list(console)
        return _run(
            _chosen(asked.only, full=asked.full), console, whole=not asked.only, full=asked.full
        )
    except _Wrong as error:
        print(error, file=sys.stderr)
        return WRONG
    except ClusterError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped: the cluster is down", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help="larger, more rounds, with peers")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="run this figure; may be repeated; no file is written",
    )
    parser.add_argument("--list", action="store_true", help="list the figures and exit")
    commands = parser.add_subparsers(dest="command", title="commands")
    drawing = commands.add_parser("page", help="draw docs/benchmarks.md from a file of results")
    drawing.add_argument("file", type=Path)
    return parser


def _list(console: Console) -> int:
    width = max((len(each.name) for each in FIGURES), default=0)
    for each in FIGURES:
        console.print(
            f"{each.name:{width}}  {each.title}{' (in full runs)' if each.only_in_full else ''}"
        )
    return 0


def _chosen(names: Sequence[str], *, full: bool) -> Sequence[Figure]:
    known = {each.name: each for each in FIGURES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _Wrong(f"no figure of that name: {', '.join(unknown)}; --list shows them")
    larger = [name for name in names if known[name].only_in_full and not full]
    if larger:
        raise _Wrong(f"measured in full runs only: {', '.join(larger)}; add --full")
    return [
        each for each in FIGURES if (each.name in names if names else full or not each.only_in_full)
    ]


def _run(figures: Sequence[Figure], console: Console, *, whole: bool, full: bool) -> int:
    # Marked while it is empty, so that `make clean` knows that it may be removed.
    make_cluster_directory(REPOSITORY / ".local")
    directory = REPOSITORY / ".local" / "bench" / time.strftime("%Y-%m-%d-%H%M%S")
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {line}", markup=False)

    def measured(so_far: Result) -> None:
        show(console, so_far.figures[-1])
        # A run may take hours more. A run of some figures only is not kept.
        if whole:
            results.write(so_far, so_far.file)

    try:
        result = measure_all(figures, directory, full=full, say=say, measured=measured)
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if any(each.failed for each in result.figures):
        say(f"logs: {directory}")
    else:
        shutil.rmtree(directory)
    if whole:
        results.write(result, result.file)
        say(f"written: {result.file.relative_to(REPOSITORY)}")
        if full:
            say(f"drawn: {page.draw(result, REPOSITORY / 'docs').relative_to(REPOSITORY)}")
    console.print(last_line(result.figures), markup=False)
    return FAILED if result.fails else 0


def _draw(file: Path, console: Console) -> int:
    try:
        result = results.read(file)
    except (OSError, ValueError) as error:
        raise _Wrong(f"{file} holds no results: {str(error).splitlines()[0]}") from error
    target = page.draw(result, REPOSITORY / "docs")
    console.print(f"drawn: {target.relative_to(REPOSITORY)}", markup=False)
    return 0


if __name__ == "__main__":
    # As Ctrl-C, which asyncio turns into a cancellation: what it started ends with it, in order.
    # A shell that starts it in the background has Ctrl-C ignored, and SIGTERM would be too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.exit(main())
