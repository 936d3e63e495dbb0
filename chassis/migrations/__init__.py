"""Migrates a service's schema: the chassis's revisions and the service's own."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, resources
from pathlib import Path

from alembic import command, op
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util.exc import CommandError
from sqlalchemy import MetaData

from chassis.persistence.schema_version import revision_directories

# Any constant: of two processes that migrate one database, the second waits for the first.
MIGRATION_LOCK = 5_317_009

# Commands that need a table queue behind a migration that waits for it, so it gives up before they
# do, and is run again.
LOCK_TIMEOUT_S = 3

# Version 18, since when RETURNING can return what a row was before (docs/decisions/0009).
_OLDEST_SERVER = 180_000


class ServerTooOld(Exception):
    """The services do not run on this version of PostgreSQL."""


class SchemaIsNewer(Exception):
    """The database was migrated by code that is newer than this."""


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
    config.set_main_option("script_location", _uninterpolated(here))
    config.set_main_option("path_separator", "newline")
    config.set_main_option(
        "version_locations",
        "\n".join(map(_uninterpolated, revision_directories(service_package))),
    )
    config.attributes["database_url"] = database_url
    config.attributes["metadata"] = metadata_of(service_package)
    return config


def _uninterpolated(path: Path) -> str:
    # Alembic's configuration takes % for the beginning of a reference.
    return str(path).replace("%", "%%")


def metadata_of(service_package: str) -> MetaData:
    """Return every table of a service: ``metadata`` of ``<service>.migrations``."""
    metadata = import_module(f"{service_package}.migrations").metadata
    assert isinstance(metadata, MetaData)  # noqa: S101 - for the type checker
    return metadata


async def upgrade(service_package: str, database_url: str) -> None:
    """Migrate the schema to the newest revision; a second call changes nothing.

    :raises SchemaIsNewer: newer code has migrated it further
    """
    config = config_of(service_package, database_url)
    try:
        await asyncio.to_thread(command.upgrade, config, "heads")
    except CommandError as error:
        if isinstance(error.__cause__, ResolutionError):
            raise SchemaIsNewer(
                f"The database has a schema that this code does not know"
                f" ({error.__cause__.argument}): newer code has migrated it. Use that code, or"
                " another database."
            ) from error
        raise


@contextmanager
def concurrently() -> Iterator[None]:
    """Run what the block does outside of a transaction, for as long as it has to wait.

    For ``op.create_index(…, postgresql_concurrently=True, if_not_exists=True)``, which keeps
    writers waiting for nothing. What the revision did before is committed, so let it do nothing
    else. One that is stopped midway leaves an invalid index, to be dropped before it is run again.
    """
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        yield
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
