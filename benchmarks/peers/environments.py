"""Virtual environments for peers written in Python, made once and kept in the cache."""

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.figure import Unavailable
from local_cluster.settings import Settings

_VERSIONS: Final = ((3, 14), (3, 13), (3, 12))


async def environment(
    name: str, requirements: Sequence[str], *, at_least: tuple[int, int] = (3, 11)
) -> Path:
    """Return the Python of an environment that has these packages and their dependencies.

    ``environment("faststream", ["faststream[kafka]==0.7.8"])``

    :param at_least: the version of Python that they need
    :raises Unavailable: they could not be installed, or there is no such Python
    """
    base = _python(name, at_least)
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    home = Settings().cache_directory / "peers" / f"{name}-{wanted}"
    python, whole = home / "bin" / "python", home / "whole"
    if whole.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)  # one that was begun and not finished
    home.parent.mkdir(parents=True, exist_ok=True)
    await _run(name, base, "-m", "venv", str(home))
    await _run(name, str(python), "-m", "pip", "install", "--quiet", *requirements)
    whole.touch()
    return python


def _python(name: str, at_least: tuple[int, int]) -> str:
    """Return this Python if it is new enough, else a newer one on the path."""
    if sys.version_info >= at_least:
        return sys.executable
    for major, minor in _VERSIONS:
        if (major, minor) >= at_least and (found := shutil.which(f"python{major}.{minor}")):
            return found
    raise Unavailable(f"{name} needs Python {at_least[0]}.{at_least[1]}, which is not on the path")


async def _run(name: str, *argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable(f"{name} could not be installed: {last}")
