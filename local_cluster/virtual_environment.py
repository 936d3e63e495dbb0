"""Makes the virtual environment, and installs into it: ``make`` runs it, with any Python.

It uses the standard library only, since nothing is installed yet.

    python local_cluster/virtual_environment.py make .venv
    .venv/bin/python local_cluster/virtual_environment.py install requirements.txt
"""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

_REPORT_EVERY_S = 5.0
# They would have pip install elsewhere, or not at all.
_NOT_FOR_PIP = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")


def make(folder: Path) -> None:
    """Make a virtual environment there; one that is there, or half of one, is removed.

    :raises SystemExit: it can't be made; the message says what to do
    """
    if ":" in str(folder.absolute()):
        sys.exit(
            f"{Path.cwd()} has a colon in its path, where Python can't have one: move the clone"
        )
    # Debian and Ubuntu have them in a package of their own.
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        package = "python{}.{}-venv".format(*sys.version_info)
        sys.exit(f"{package} is missing (Debian, Ubuntu: sudo apt install {package})")
    import venv  # noqa: PLC0415 - it may be missing

    print(f"making a virtual environment in {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        venv.create(folder, with_pip=True, symlinks=True)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, Exception):
            sys.exit(f"no virtual environment could be made in {folder}: {error}")
        raise


def install(requirements: Path) -> None:
    """Install what a file pins into the environment of this Python, and show how far it is.

    :raises SystemExit: pip failed; what it said is shown
    """
    total = len(re.findall(r"(?m)^[\w.-]+(?:\[[\w,]*\])?==", requirements.read_text("utf-8")))
    environment = {name: os.environ[name] for name in os.environ if name not in _NOT_FOR_PIP}
    command = [sys.executable, "-m", "pip", "install", "--no-user", "--disable-pip-version-check"]
    command += ["--progress-bar=off", "--require-hashes", "-r", str(requirements)]
    found, shown_at, said = 0, time.monotonic(), []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as pip:  # fmt: skip
        for line in pip.stdout or ():
            said.append(line)
            found += line.startswith(("Collecting ", "Requirement already"))
            if line.startswith("Installing collected"):
                print("  installing them", flush=True)
                shown_at = float("inf")
            elif time.monotonic() - shown_at > _REPORT_EVERY_S:
                shown_at = time.monotonic()
                print(f"  {found} of {total} packages fetched", flush=True)
    if pip.returncode != 0:
        sys.exit("".join(said[-20:]))


if __name__ == "__main__":
    {"make": make, "install": install}[sys.argv[1]](Path(sys.argv[2]))
