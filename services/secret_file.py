"""A secret in a file, made at its first use."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path


def secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> str:
    """Return the secret in ``path``, made if there is none yet: at random, unless told how."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it 0600; the name appears only when the secret is complete.
        handle, scratch = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w") as file:
            file.write(make())
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass  # another process made it first: its secret is used
        finally:
            Path(scratch).unlink()
    return path.read_text()
