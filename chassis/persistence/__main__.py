"""``python -m chassis.persistence create-databases``: prepare a PostgreSQL server.

It makes the database and the login of each service. It may be run again at any time.
"""

import asyncio
import sys
from typing import Final

import asyncpg
import click

from chassis.persistence.logins import create_databases
from chassis.settings import BAD_SETTINGS_EXIT_CODE, WrongSecretFile, secret_of
from services import WITH_DATABASE

_ADMINISTRATOR: Final = "ADMINISTRATOR_DATABASE_URL"


@click.group(help=__doc__)
def main() -> None: ...


@main.command("create-databases")
def create_databases_command() -> None:
    """Make what is missing of the services' databases and logins, and set the passwords.

    They are those of USERS_DATABASE_URL and so on. ADMINISTRATOR_DATABASE_URL is the URL of a
    superuser. Each may be in a file, which the variable with _FILE names.
    """
    variables = [_ADMINISTRATOR, *(f"{each.prefix}DATABASE_URL" for each in WITH_DATABASE)]
    try:
        urls = {name: secret_of(name) for name in variables}
    except WrongSecretFile as error:
        click.echo(str(error), err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)
    if unset := [name for name, url in urls.items() if url is None]:
        click.echo(f"not set: {', '.join(unset)}", err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)
    administrator, *others = (url for url in urls.values() if url is not None)
    try:
        made = asyncio.run(create_databases(administrator, others))
    except ValueError as error:
        click.echo(f"a database's URL {error}", err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)
    except (asyncpg.PostgresError, OSError) as error:
        click.echo(f"PostgreSQL: {type(error).__name__}", err=True)
        sys.exit(1)
    click.echo(f"created {', '.join(made)}" if made else "every database exists already")


if __name__ == "__main__":
    main()
