"""Certificates for tests: an authority of their own, and what it signs, in files."""

from dataclasses import dataclass
from pathlib import Path

from services.certificates import new_authority, new_certificate


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, each a PEM file."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is in ``ca_file``."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._own = new_authority(name)
        self.ca_file = directory / f"{name}.pem"
        self.ca_file.write_bytes(self._own.certificate)

    def sign(self, name: str, *hosts: str) -> Certificate:
        """Make a certificate of this common name, for a server with these addresses or a client."""
        signed = new_certificate(self._own, name, hosts)
        files = Certificate(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        files.certificate.write_bytes(signed.certificate)
        files.key.write_bytes(signed.key)
        files.key.chmod(0o600)
        return files
