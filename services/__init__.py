"""Which processes the system has: ``services.toml``, read by all that must know each of them."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("services.toml")


class WrongDeclaration(Exception):
    """An entry of ``services.toml`` lacks a key, or has one of another name or type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredService:
    """One process of the system, as ``services.toml`` declares it.

    :param name: also the name of its database, its consumer group, and its outbox's publisher
    :param module: what ``python -m`` runs; its first part is the package
    :param title: what it is, in a few words, for the pages
    :param port: where its HTTP listens unless a setting says otherwise
    :param database: it owns a database, consumes and publishes
    :param unless_set: the local cluster does not start it while this variable is set
    :param forwards: it gets ``…_URL`` of each service with ``routes`` or ``operator_routes``
    :param operators_port: where it serves operators and says how it is; by default on ``port``
    :param routes: its public operations, such as ``GET /users/me``, which the gateway forwards
    :param stream_routes: such as answer with a stream, for which the gateway has places of its own
    :param operator_routes: those that need an operator, beside ``/ops``: the gateway forwards both
        at its operators' port. With neither kind of routes the gateway does not know the service
    :param settings: what the local cluster sets for it, without the prefix. ``{directory}`` is the
        cluster's directory, ``{url[name]}`` the address of a service (a setting with the address of
        one that is not started is left out), ``{secret[name]}`` a secret made once
    :param aggregates: the topic of each kind of aggregate that it publishes, and the table in which
        ``id`` and ``sequence`` are those of its last event: the verification compares them
    """

    name: str
    module: str
    title: str
    port: int
    database: bool = False
    unless_set: str | None = None
    forwards: bool = False
    operators_port: int | None = None
    routes: Sequence[str] = ()
    stream_routes: Sequence[str] = ()
    operator_routes: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    aggregates: Mapping[str, str] = field(default_factory=dict)

    @property
    def operations(self) -> list[tuple[str, str]]:
        """Return the method and the path of each public operation."""
        return _operations(self.routes)

    @property
    def stream_operations(self) -> list[tuple[str, str]]:
        """Return the method and the path of each public operation that answers with a stream."""
        return _operations(self.stream_routes)

    @property
    def operator_operations(self) -> list[tuple[str, str]]:
        """Return the method and the path of each operation that needs an operator."""
        return _operations(self.operator_routes)

    @property
    def health_listener(self) -> tuple[str, int]:
        """Return where it says why it is not ready: how those settings begin, and the port."""
        if self.operators_port is None:
            return "HTTP", self.port
        return "OPERATORS", self.operators_port

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def identifier(self) -> str:
        """Return the name as part of a variable's name."""
        return self.name.replace("-", "_")

    @property
    def prefix(self) -> str:
        """Return what its environment variables begin with."""
        return f"{self.identifier.upper()}_"


def _operations(routes: Sequence[str]) -> list[tuple[str, str]]:
    return [(method, path) for method, _, path in (route.partition(" ") for route in routes)]


_TYPES: Final[Mapping[str, type]] = {
    "module": str,
    "title": str,
    "port": int,
    "database": bool,
    "unless_set": str,
    "forwards": bool,
    "operators_port": int,
    "routes": list,
    "stream_routes": list,
    "operator_routes": list,
    "settings": dict,
    "aggregates": dict,
}


def read(file: Path = FILE) -> tuple[DeclaredService, ...]:
    """Return the processes in the order of the file.

    :raises WrongDeclaration: an entry is not as ``DeclaredService`` wants it
    """
    entries = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(_declared(name, entry) for name, entry in entries.items())


def _declared(name: str, entry: Mapping[str, Any]) -> DeclaredService:
    for key, value in entry.items():
        if key not in _TYPES:
            known = ", ".join(each.name for each in fields(DeclaredService) if each.name != "name")
            raise WrongDeclaration(f"{name}.{key}: no such key; there are {known}")
        if type(value) is not _TYPES[key]:
            raise WrongDeclaration(f"{name}.{key}: must be of type {_TYPES[key].__name__}")
    if missing := {"module", "title", "port"} - entry.keys():
        raise WrongDeclaration(f"{name}: lacks {', '.join(sorted(missing))}")
    return DeclaredService(name=name, **entry)


SERVICES: Final = read()
"""Every process."""

WITH_DATABASE: Final = tuple(each for each in SERVICES if each.database)
"""Those that own a database, consume and publish."""

FORWARDED: Final = tuple(each for each in SERVICES if each.routes or each.operator_routes)
"""Those that clients or operators reach through the gateway."""


def service_named(name: str) -> DeclaredService:
    """Return the process with this name."""
    return next(each for each in SERVICES if each.name == name)
