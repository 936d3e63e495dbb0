"""The directories and ports of the cluster, read from LOCAL_… variables."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services import SERVICES, DeclaredService
from services.settings import one_for_each

PROJECT = "kafka-native-onboarding"
REPOSITORY = Path(__file__).resolve().parent.parent


def _default_cache() -> Path:
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root, so another user must be able to read its programs.
        return Path("/var/cache") / PROJECT
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return REPOSITORY / ".cache"  # the user has no home
    return caches / PROJECT if _can_be_written(caches) else REPOSITORY / ".cache"


def _can_be_written(folder: Path) -> bool:
    """Return whether the user may write in a folder, or make it where it is not there."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
    except OSError:
        return False  # a folder above it is closed
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _port(default: int, owner: str) -> dict[str, Any]:
    return {"default": default, "ge": 1, "le": 65535, "description": f"port of {owner}"}


def _port_of(service: DeclaredService) -> dict[str, Any]:
    return _port(service.port, f"the {service.name} service")


WITH_OPERATORS_LISTENER = tuple(each for each in SERVICES if each.operators_port is not None)


def port_setting(service: DeclaredService) -> str:
    """Return the field of ``Settings`` with a service's port."""
    return f"{service.identifier}_port"


def operators_port_setting(service: DeclaredService) -> str:
    """Return the field of ``Settings`` with the port of a service's operators' listener."""
    return f"{service.identifier}_operators_port"


def _usable(path: Path) -> Path:
    path = path.absolute()
    # Java separates the paths of jars by colons, and knows only names that are UTF-8.
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise ValueError("a path whose name is not UTF-8 can't be used") from None
    if sys.getfilesystemencoding() != "utf-8" and not str(path).isascii():
        raise ValueError("with this path Python must take names for UTF-8: set PYTHONUTF8=1")
    if any(each in str(path) for each in ":\n"):
        raise ValueError("a path with a colon or a line break can't be used")
    return path


_PORTS_FILE = "ports.json"

FullPath = Annotated[Path, AfterValidator(_usable)]


@one_for_each(SERVICES, "_port", int, _port_of)
class Settings(BaseSettings):
    """One cluster: its directory, the shared cache, its ports."""

    model_config = SettingsConfigDict(env_prefix="LOCAL_", frozen=True, extra="forbid")

    directory: FullPath = Field(
        default=REPOSITORY / ".local",
        validate_default=True,
        description="data, secrets and logs; removed by `clean`",
    )
    cache_directory: FullPath = Field(
        default_factory=_default_cache,
        validate_default=True,
        description="what is downloaded, once per user",
    )
    port_offset: int | None = Field(
        default=None,
        ge=0,
        le=30_000,
        description="moves every port by so much, so that several clones can be up; `up` remembers"
        " the ports",
    )
    kafka_port: int = Field(**_port(9092, "Kafka for clients"))
    kafka_controller_port: int = Field(**_port(29093, "Kafka's own controller"))
    postgres_port: int = Field(**_port(25432, "PostgreSQL"))
    gateway_operators_port: int = Field(**_port(8001, "the operators' listener of the gateway"))

    @classmethod
    def ports(cls) -> list[str]:
        """Return the names of the settings that are ports."""
        return [name for name in cls.model_fields if name.endswith("_port")]

    def with_remembered_ports(self, *, starting: bool) -> "Settings":
        """Return these settings with the ports that ``up`` remembered in the directory.

        :param starting: ports that are set are used, and an offset, instead of those remembered;
            else the remembered ones, at which this cluster is
        """
        remembered = self._read_ports()
        named = {
            name: getattr(self, name) for name in self.ports() if name in self.model_fields_set
        }
        moved = {
            name: type(self).model_fields[name].default + (self.port_offset or 0)
            for name in self.ports()
        }
        if not starting:
            chosen = moved | named | remembered
        elif self.port_offset is None:
            chosen = moved | remembered | named
        else:
            chosen = moved | named
        return type(self).model_validate(self.model_dump() | chosen)

    def remember_ports(self) -> None:
        """Write the ports where ``with_remembered_ports`` finds them."""
        ports = {name: getattr(self, name) for name in self.ports()}
        written = self.directory / f"{_PORTS_FILE}.{os.getpid()}"
        written.write_text(json.dumps(ports, indent=2), encoding="utf-8")
        written.replace(self.directory / _PORTS_FILE)

    def _read_ports(self) -> dict[str, int]:
        try:
            found = json.loads((self.directory / _PORTS_FILE).read_text(encoding="utf-8"))
            return {name: found[name] for name in self.ports() if name in found}
        except (FileNotFoundError, ValueError):
            return {}  # none yet, or half of a file, as after a power cut

    def port_of(self, service: DeclaredService) -> int:
        """Return the port of a service."""
        port: int = getattr(self, port_setting(service))
        return port

    def operators_port_of(self, service: DeclaredService) -> int:
        """Return the port at which a service serves operators."""
        if service.operators_port is None:
            return self.port_of(service)
        port: int = getattr(self, operators_port_setting(service))
        return port
