"""A run that is asked to end leaves nothing behind."""

import asyncio
import os
import signal
import sys

import psutil

from benchmarks.__main__ import STOPPED
from local_cluster.settings import REPOSITORY


async def test_a_run_that_is_told_to_end_takes_along_what_it_started() -> None:
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", "--only", "relay-backlog"),
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert run.stdout
    printed: list[bytes] = []
    try:
        async for line in run.stdout:
            printed.append(line)
            if b"round 1" in line:
                break
        ended = run.returncode
        assert ended is None, printed
        started = psutil.Process(run.pid).children(recursive=True)

        run.send_signal(signal.SIGTERM)
        _, said = await run.communicate()
    finally:
        if run.returncode is None:
            run.kill()

    # asyncio may say before that a loop was closed while a process ended.
    assert (run.returncode, said.splitlines()[-1]) == (STOPPED, b"stopped: the cluster is down")
    _, left = psutil.wait_procs(started, timeout=60)
    assert started
    assert left == []
