"""``python -m services.secrets``: makes the secrets that the services need, each for its readers.

``DIRECTORY/all`` keeps each secret, made at random once; remove one there to have it made again.
``DIRECTORY/users`` has what the users service reads, in files named after its settings in lower
case, and so on; ``DIRECTORY/postgres`` what the server and its administrator read, and a directory
named after another login its password. In containers each of these is a volume, so a process sees
its own only. Run again, it changes nothing.

With ``--broker`` there are also passwords at Kafka, and certificates of an authority of its own:
``DIRECTORY/kafka`` has what the brokers read, ``DIRECTORY/administrator`` what their administrator
reads, and ``DIRECTORY/verification`` what the verification does.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from services import SERVICES, WITH_DATABASE, DeclaredService
from services.certificates import Certificate, new_authority, new_certificate
from services.secret_file import secret

_OF_TEMPLATE: Final = re.compile(r"\{secret\[([\w-]+)\]\}")
_ADMINISTRATOR: Final = "postgres"


def main() -> None:
    """Write the secrets as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--postgres", required=True, help="host:port of the server")
    parser.add_argument("--broker", action="append", default=[], help="host of a broker, for TLS")
    parser.add_argument("--login", action="append", default=[], help="another login of PostgreSQL")
    given = parser.parse_args()
    write_secrets(
        given.directory, postgres=given.postgres, brokers=given.broker, logins=given.login
    )


def write_secrets(
    directory: Path, *, postgres: str, brokers: Sequence[str] = (), logins: Sequence[str] = ()
) -> None:
    """Make what is missing of the secrets, and write them for their readers.

    :param postgres: host and port of the server, for the URLs of the databases
    :param brokers: hosts of the brokers, for their certificate; without any there are no secrets of
        Kafka
    :param logins: of PostgreSQL, beside those of the services and the administrator
    """
    made = _Made(directory / "all", postgres)
    readers = {service.name: dict(_secrets_of(service, made)) for service in SERVICES}
    readers["postgres"] = {
        "password": made.password(_ADMINISTRATOR),
        "database_url": made.url(_ADMINISTRATOR),
    }
    readers |= {login: {"password": made.password(login)} for login in logins}
    if brokers:
        for reader, files in _secrets_of_kafka(made, brokers).items():
            readers[reader] = readers.get(reader, {}) | files
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

    def certificate(self, name: str, make: Callable[[], Certificate]) -> Certificate:
        """Return a certificate and its key, made if there are none yet."""
        pem = secret(self._directory / f"{name}.pem", lambda: _pem(make()))
        certificate, begin, key = pem.partition("-----BEGIN PRIVATE KEY-----")
        return Certificate(certificate.encode(), (begin + key).encode())

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


def _secrets_of_kafka(made: _Made, brokers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the files of each who signs in to Kafka, and of the brokers."""
    authority = made.certificate("kafka-authority", lambda: new_authority("kafka-authority"))
    hosts = [*brokers, "localhost", "127.0.0.1"]
    broker = made.certificate("kafka-broker", lambda: new_certificate(authority, "broker", hosts))
    administrator = made.certificate(
        "kafka-administrator", lambda: new_certificate(authority, "administrator")
    )
    ca = {"kafka_ca_file": authority.certificate.decode()}
    logins = [*(each.name for each in WITH_DATABASE), "verification"]
    passwords = {each: made.secret(f"kafka-{each}") for each in logins}
    return {
        **{each: ca | {"kafka_sasl_password": passwords[each]} for each in logins},
        "administrator": ca
        | {"kafka_certificate_file": _pem(administrator)}
        | {f"password_of_{each}": passwords[each] for each in logins},
        "kafka": {"truststore": ca["kafka_ca_file"], "keystore": _pem(broker)},
    }


def _pem(certificate: Certificate) -> str:
    return b"".join(certificate).decode()


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
