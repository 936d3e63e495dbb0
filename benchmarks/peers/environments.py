"""Virtual environments for peers written in Python, made once and kept in the cache."""

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figure import Unavailable
from local_cluster.settings import Settings


async def environment(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of an environment that has these packages and their dependencies.

    ``environment("faststream", ["faststream[kafka]==0.7.8"])``

    :raises Unavailable: they could not be installed
    """
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    home = Settings().cache_directory / "peers" / f"{name}-{wanted}"
    python, whole = home / "bin" / "python", home / "whole"
    if whole.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)  # one that was begun and not finished
    home.parent.mkdir(parents=True, exist_ok=True)
    await _run(name, sys.executable, "-m", "venv", str(home))
    await _run(name, str(python), "-m", "pip", "install", "--quiet", *requirements)
    whole.touch()
    return python


async def _run(name: str, *argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unavailable(f"{name} could not be installed: {last}")
