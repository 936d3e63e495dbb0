"""Makes databases and the logins that own them; made again, a login gets its present password."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg

from chassis.persistence.connecting import connect

# A failed statement would be logged as a whole, and some of ours contain a password.
QUIET: Final = {"log_min_error_statement": "panic"}
# The lock of those who make logins: any number that no other lock has.
_ONE_AT_A_TIME: Final = 0x10610


async def create_databases(administrator_url: str, urls: Iterable[str]) -> list[str]:
    """Make the database and the login that each of these URLs names, and return what was made.

    Each login owns its database and can open no other. One that exists gets the password of its
    URL, so a changed one is taken.

    :param administrator_url: of a superuser, who opens any database of the server
    :raises ValueError: a URL names no login, or no password
    :raises Exception: what ``connect`` raises
    """
    wanted = [_parts(url) for url in urls]
    connection = await connect(
        administrator_url, application_name="create-databases", settings=QUIET
    )
    try:
        # Two at once would both find a thing missing, or change one row at the same time.
        await connection.execute("SELECT pg_advisory_lock($1)", _ONE_AT_A_TIME)
        made = []
        for login, password, database in wanted:
            await create_login(connection, login, password)
            if not await _exists(connection, "pg_database", "datname", database):
                await create_database(connection, database, owner=login)
                made.append(database)
        await grant_access_by_name_only(connection)
    finally:
        await connection.close()
    return made


def _parts(url: str) -> tuple[str, str, str]:
    parsed = urlsplit(url)
    if not (parsed.username and parsed.password):
        raise ValueError("must name a login and its password")
    login, password = unquote(parsed.username), unquote(parsed.password)
    return login, password, unquote(parsed.path.removeprefix("/")) or login


async def create_login(connection: "asyncpg.Connection", name: str, password: str) -> None:
    """Make a login, or give one that exists this password."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _ONE_AT_A_TIME)
        exists = await _exists(connection, "pg_roles", "rolname", name)
        # These statements take no parameters, so the server quotes the values.
        statement = await connection.fetchval(
            "SELECT format($1::text || ' ROLE %I LOGIN PASSWORD %L', $2::text, $3::text)",
            "ALTER" if exists else "CREATE",
            name,
            password,
        )
        await connection.execute(statement)


async def create_database(
    connection: "asyncpg.Connection", name: str, owner: str, template: str = "template1"
) -> None:
    """Make a database as a copy of ``template``; beside its owner only superusers can open it."""
    await connection.execute(
        f"CREATE DATABASE {quoted(name)} OWNER {quoted(owner)} TEMPLATE {quoted(template)}"
    )
    await connection.execute(f"REVOKE CONNECT ON DATABASE {quoted(name)} FROM PUBLIC")


async def grant_access_by_name_only(connection: "asyncpg.Connection") -> None:
    """Let no login open the databases that every server has, so that none sees another's."""
    for name in ("postgres", "template1"):
        await connection.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


async def _exists(connection: "asyncpg.Connection", catalogue: str, column: str, name: str) -> bool:
    query = f"SELECT EXISTS (SELECT FROM {catalogue} WHERE {column} = $1)"  # noqa: S608 (constants)
    return bool(await connection.fetchval(query, name))
