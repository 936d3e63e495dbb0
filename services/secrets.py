"""``python -m services.secrets``: makes the secrets that the services need, each for its readers.

``DIRECTORY/all`` keeps each secret, made at random once; remove one there to have it made again.
``DIRECTORY/users`` has what the users service reads, in files named after its settings in lower
case, and so on; ``DIRECTORY/postgres`` what the server and its administrator read. In containers
each of these is a volume, so a process sees its own only. Run again, it changes nothing.
"""

import argparse
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from services import SERVICES, DeclaredService

_OF_TEMPLATE: Final = re.compile(r"\{secret\[([\w-]+)\]\}")
_ADMINISTRATOR: Final = "postgres"


def main() -> None:
    """Write the secrets as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--postgres", required=True, help="host:port of the server")
    given = parser.parse_args()
    write_secrets(given.directory, postgres=given.postgres)


def write_secrets(directory: Path, *, postgres: str) -> None:
    """Make what is missing of the secrets, and write them for their readers.

    :param postgres: host and port of the server, for the URLs of the databases
    """
    made = _Made(directory / "all", postgres)
    readers = {service.name: dict(_secrets_of(service, made)) for service in SERVICES}
    readers["postgres"] = {
        "password": made.password(_ADMINISTRATOR),
        "database_url": made.url(_ADMINISTRATOR),
    }
    for reader, files in readers.items():
        _write(directory / reader, files)


class _Made:
    """The secrets in one directory, made when they are asked for first."""

    def __init__(self, directory: Path, postgres: str) -> None:
        self._directory = directory
        self._postgres = postgres

    def secret(self, name: str) -> str:
        return secret(self._directory / name)

    def password(self, login: str) -> str:
        return self.secret(f"postgres-{login}")

    def url(self, login: str) -> str:
        return f"postgresql://{login}:{self.password(login)}@{self._postgres}/{login}"


def _secrets_of(service: DeclaredService, made: _Made) -> Iterator[tuple[str, str]]:
    for setting, template in service.settings.items():
        if found := _OF_TEMPLATE.fullmatch(template):
            yield setting.lower(), made.secret(found[1])
    if service.database:
        yield "database_url", made.url(service.name)
        yield "idempotency_secret", made.secret(f"{service.name}-idempotency")
    if service.name == "users":
        yield "operator_password", made.secret("operator")


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


def _write(directory: Path, files: Mapping[str, str]) -> None:
    """Write files that whoever sees the directory can read; each is replaced whole."""
    if not files:
        return
    directory.mkdir(mode=0o755, exist_ok=True)
    for name, value in files.items():
        handle, scratch = tempfile.mkstemp(dir=directory)
        with os.fdopen(handle, "w") as file:
            file.write(value)
            # The users of the containers differ: the directory is what keeps others out.
            os.fchmod(handle, 0o444)
        Path(scratch).rename(directory / name)


if __name__ == "__main__":
    main()
