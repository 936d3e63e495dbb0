"""Secrets of one cluster: made once, kept in files that only their owner can read."""

import os
import secrets
import tempfile
from pathlib import Path


def secret(path: Path) -> str:
    """Return the secret in ``path``, made at random if there is none yet."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it 0600; the name appears only when the secret is complete.
        handle, scratch = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(24))
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass  # another process made it first: its secret is used
        finally:
            Path(scratch).unlink()
    return path.read_text()
