"""SIGTERM ends a process during its imports, by a handler: process 1 has no default action."""

import signal
import subprocess
import sys

import pytest

from services import SERVICES, DeclaredService

# The first import of ours behind the handler sends the signal.
_TERMINATED_AT_THE_FIRST_IMPORT = """
import os, runpy, signal, sys

class Terminating:
    def find_spec(self, name, path=None, target=None):
        if name == "chassis":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Terminating())
module, sys.argv[1:] = sys.argv[1], []
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_a_process_that_is_importing_ends_by_its_own_handler(service: DeclaredService) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _TERMINATED_AT_THE_FIRST_IMPORT, service.module],
        capture_output=True,
        text=True,
        check=False,
    )

    # By the default action it would be minus the signal's number, and process 1 has none.
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, "")
