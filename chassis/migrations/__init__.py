"""Moves a service's schema up and down: the chassis's revisions and the service's own."""

import asyncio
from importlib import import_module, resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData

# Any constant will do: two processes that migrate one database take turns.
MIGRATION_LOCK = 5_317_009

# Only from then on does RETURNING tell what a row was before (docs/decisions/0009).
_OLDEST_SERVER = 180_000


class ServerTooOld(Exception):
    """PostgreSQL is of a version that the services do not run on."""


def check_server(version: int) -> None:
    """Let a server pass that the services run on.

    :param version: as ``server_version_num`` has it: 180006 for 18.6
    :raises ServerTooOld: it is none of those
    """
    if version < _OLDEST_SERVER:
        major, minor = divmod(version, 10_000)
        raise ServerTooOld(f"PostgreSQL 18 or newer is needed, and this is {major}.{minor}.")


def config_of(service_package: str, database_url: str) -> Config:
    """Return Alembic's configuration for one service, for any of its commands."""
    config = Config()
    here = Path(str(resources.files("chassis"))) / "migrations"
    service = Path(str(resources.files(service_package))) / "migrations" / "versions"
    config.set_main_option("script_location", str(here))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{here / 'versions'}\n{service}")
    config.attributes["database_url"] = database_url
    config.attributes["metadata"] = metadata_of(service_package)
    return config


def metadata_of(service_package: str) -> MetaData:
    """Return every table of a service: ``<service>.migrations`` says ``metadata``."""
    metadata = import_module(f"{service_package}.migrations").metadata
    assert isinstance(metadata, MetaData)  # noqa: S101 - for the type checker
    return metadata


async def upgrade(service_package: str, database_url: str) -> None:
    """Bring the schema to the newest revision; a second call changes nothing."""
    config = config_of(service_package, database_url)
    await asyncio.to_thread(command.upgrade, config, "heads")
