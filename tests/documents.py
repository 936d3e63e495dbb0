"""Asks a running API what its own document describes, by schemathesis.

Requests that the document allows must not be refused as invalid, others must be, and each answer
must be one that the document has.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")


async def assert_keeps_its_document(
    url: str, headers: Mapping[str, str], *, examples: int, options: Sequence[str] = ()
) -> None:
    """Run schemathesis on ``/openapi.json`` of what listens there.

    :param examples: of requests that are made up for each operation, at most
    :param options: more options of ``schemathesis run``
    """
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIGURATION)),
        *("run", f"{url}/openapi.json", f"--max-examples={examples}", "--no-color"),
        *(f"--header={name}: {value}" for name, value in headers.items()),
        *options,
    ]
    with TemporaryDirectory() as kept:  # what failed, to be sent again
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=kept
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert b"Test cases:" in printed
