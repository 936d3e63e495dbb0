"""``python -m users_service`` serves; its commands migrate, make keys and create operators."""

from services.healthy import exit_if_asked
from services.importing import importing
from services.stopping import exit_at_sigterm

if __name__ == "__main__":
    exit_at_sigterm()
    exit_if_asked("users")

import asyncio
from pathlib import Path
from typing import NoReturn

import click

with importing():
    from chassis.correlation import new_id
    from chassis.process.service import service_command_line
    from chassis.settings import read_settings
    from chassis.telemetry import configure_logging
    from users_service.adapters.signing_keys import add_key, has_key
    from users_service.bootstrap import SERVICE, build, create_operator
    from users_service.domain.errors import UserError
    from users_service.domain.values import EmailAddress, Password, Username
    from users_service.settings import UsersSettings

cli = service_command_line(SERVICE, build)


@cli.command("rotate-keys")
@click.option("--if-none", is_flag=True, help="Only if there is no key yet.")
def rotate_keys(*, if_none: bool) -> None:
    """Make a new key for signing access tokens. Older keys still verify the tokens they signed."""
    settings = read_settings(UsersSettings)
    if if_none and has_key(settings.keys_dir):
        click.echo("there is a key already, and none was made")
        return
    kid = new_id()
    add_key(settings.keys_dir, kid)
    click.echo(f"{kid} is published; it signs in {settings.keys_published_ahead_s:g} s")


@cli.command("create-operator")
@click.option("--username", required=True)
@click.option("--email", required=True)
@click.option(
    "--password-file",
    required=True,
    type=click.Path(path_type=Path),
    help="A file with the password as its only line.",
)
def create_operator_command(username: str, email: str, password_file: Path) -> None:
    """Create an operator. One who exists already is not changed."""
    settings = read_settings(UsersSettings)
    try:
        name, address = Username.parse(username), EmailAddress.parse(email)
    except UserError as error:
        _refuse(f"{error.code}: {error}")
    try:
        text = password_file.read_text().rstrip("\r\n")
        password = Password.parse(text, known=(name.value, address.value))
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"{password_file}: {type(error).__name__}")
    except UserError as error:
        _refuse(f"the password in {password_file}: {error}")
    try:
        configure_logging(SERVICE.name, settings)
        created = asyncio.run(create_operator(settings, name, address, password))
    except UserError as error:
        _refuse(f"{error.code}: {error}")
    click.echo(
        f"{username}: {'created' if created else 'is an operator already and was not changed'}"
    )


def _refuse(why: str) -> NoReturn:
    click.echo(why, err=True)
    raise SystemExit(2)


if __name__ == "__main__":
    cli()
