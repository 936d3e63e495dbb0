"""`python -m tests.known_vulnerabilities`: asks whether one is known of a version in the lock.

pip-audit asks the package registry. By itself it ends in the same way when it finds something as
when there is no network, and well where the registry answers that it knows no package. Here each
has an exit code of its own:

0. all packages were asked for, and no vulnerability is known of any;
1. some are known, and listed;
2. not all packages could be asked for, and no vulnerability is known of the others.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final

LOCK: Final = "requirements-dev.txt"
"""It includes what the product runs on."""

_PIP_AUDIT: Final = (
    *(sys.executable, "-m", "pip_audit", "--requirement", LOCK, "--require-hashes"),
    # The lock is complete, so nothing is resolved.
    *("--disable-pip", "--format=json", "--progress-spinner=off"),
)


class Outcome(IntEnum):
    """What the answers come to, as an exit code."""

    NONE_KNOWN = 0
    SOME_KNOWN = 1
    NOT_ASKED = 2


def ask(command: Sequence[str] = _PIP_AUDIT) -> Outcome:
    """Run pip-audit, print what it found for people, and return what that comes to."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        _print(f"Nothing could be asked, so nothing is known: {lines[-1]}")
        return Outcome.NOT_ASKED
    known = list(_known(answers))
    not_asked = [each["name"] for each in answers if "skip_reason" in each]
    _print(*known)
    if not_asked or not answers:
        _print(f"The registry did not answer for {len(not_asked)} of {len(answers)} packages:")
        _print(f"  {', '.join(not_asked)}")
    else:
        _print(f"All {len(answers)} packages were asked for; {len(known)} vulnerabilities known.")
    if known:
        return Outcome.SOME_KNOWN
    return Outcome.NOT_ASKED if not_asked or not answers else Outcome.NONE_KNOWN


def _known(answers: Sequence[dict[str, Any]]) -> Iterator[str]:
    for package in answers:
        for each in package.get("vulns", ()):
            corrected = ", ".join(each["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {each['id']}, corrected in {corrected}"


def _print(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(ask())
