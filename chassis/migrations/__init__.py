"""Migrates a service's schema: the chassis's revisions and the service's own."""

import asyncio
from importlib import import_module, resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData

# Any constant: of two processes that migrate one database, the second waits for the first.
MIGRATION_LOCK = 5_317_009

# Version 18, since when RETURNING can return what a row was before (docs/decisions/0009).
_OLDEST_SERVER = 180_000


class ServerTooOld(Exception):
    """The services do not run on this version of PostgreSQL."""


def check_server(version: int) -> None:
    """Check that the services run on this version of PostgreSQL.

    :param version: ``server_version_num``: 180006 for 18.6
    :raises ServerTooOld: they do not
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
    """Return every table of a service: ``metadata`` of ``<service>.migrations``."""
    metadata = import_module(f"{service_package}.migrations").metadata
    assert isinstance(metadata, MetaData)  # noqa: S101 - for the type checker
    return metadata


async def upgrade(service_package: str, database_url: str) -> None:
    """Migrate the schema to the newest revision; a second call changes nothing."""
    config = config_of(service_package, database_url)
    await asyncio.to_thread(command.upgrade, config, "heads")
