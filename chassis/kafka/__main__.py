"""``python -m chassis.kafka``: prepare the topics of the catalogue, and who may use them.

``create-topics`` creates those that are missing, ``create-acls`` the rights of each login, and
``create-logins`` the logins. ``raise-partitions`` gives one topic as many partitions as the
catalogue has now. All sign in as KAFKA_SECURITY_PROTOCOL and the other settings of Kafka say.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import asyncpg
import click
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import BrokerResponseError, KafkaError

from chassis.kafka import partitions
from chassis.kafka.acls import create_acls
from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.logins import set_passwords
from chassis.kafka.shown import NotShown
from chassis.kafka.topics import create_topics
from chassis.settings import (
    BAD_SETTINGS_EXIT_CODE,
    KafkaSettings,
    WrongSecretFile,
    read_settings,
    secret_of,
)
from contracts.acls import acls_of
from contracts.topics import TOPICS

T = TypeVar("T")


@click.group(help=__doc__)
def main() -> None: ...


@main.command("create-topics")
@click.option("--bootstrap", required=True, help="host:port of a broker")
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="How many each topic gets; by default what the catalogue asks for, or one on each broker.",
)
def create_topics_command(bootstrap: str, replicas: int | None) -> None:
    """Create the topics of the catalogue that are missing."""

    async def create(client: AIOKafkaAdminClient) -> list[str]:
        cluster = await client.describe_cluster()
        return await create_topics(client, brokers=len(cluster["brokers"]), replicas=replicas)

    created = _administer(bootstrap, create)
    click.echo(f"created {', '.join(created)}" if created else "every topic exists already")


@main.command("create-acls")
@click.option("--bootstrap", required=True, help="host:port of a broker")
def create_acls_command(bootstrap: str) -> None:
    """Create what is missing of the rights that the catalogue gives.

    None is removed: what a login may do beside that is printed.
    """
    granted = _administer(bootstrap, lambda client: create_acls(client, acls_of()))
    created = len(granted.created)
    click.echo(f"created {created} ACLs" if created else "every ACL exists already")
    for each in granted.others:
        click.echo(f"not of the catalogue: {each}", err=True)


@main.command("create-logins")
@click.option("--bootstrap", required=True, help="host:port of a broker")
@click.option(
    "--password-file",
    "files",
    type=(str, click.Path(path_type=Path)),
    multiple=True,
    required=True,
    metavar="LOGIN FILE",
    help="A login and the file with its password; once for each login.",
)
def create_logins_command(bootstrap: str, files: Sequence[tuple[str, Path]]) -> None:
    """Make logins (SCRAM-SHA-512), or give those that exist their passwords.

    A service's login has its name. That of a team that reads has the name in the catalogue.
    """
    passwords = {login: _password_in(file) for login, file in files}
    _administer(bootstrap, lambda client: set_passwords(client, passwords))
    click.echo(f"set the passwords of {', '.join(passwords)}")


@main.command("raise-partitions")
@click.argument("topic", type=click.Choice([topic.name for topic in TOPICS]), metavar="TOPIC")
@click.option("--bootstrap", required=True, help="host:port of a broker")
def raise_partitions_command(topic: str, bootstrap: str) -> None:
    """Give a topic as many partitions as the catalogue has, once all its events are handled.

    Keys move to other partitions then. So the command changes nothing and ends with exit code 2
    while the topic's owner publishes, or while a consumer has not read all of it. It looks into
    the databases of the owner and of the consumers: USERS_DATABASE_URL and so on, or the file that
    USERS_DATABASE_URL_FILE names.
    """
    chosen = next(each for each in TOPICS if each.name == topic)
    variables = {
        service: f"{service.upper()}_DATABASE_URL" for service in {chosen.owner, *chosen.consumers}
    }
    try:
        urls = {service: secret_of(name) for service, name in variables.items()}
    except WrongSecretFile as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    databases = {service: url for service, url in urls.items() if url is not None}
    unset = sorted(name for service, name in variables.items() if service not in databases)
    if unset:
        click.echo(f"not set: {', '.join(unset)}", err=True)
        sys.exit(2)
    settings = read_settings(KafkaSettings, kafka_bootstrap=bootstrap)
    try:
        raised = asyncio.run(partitions.raise_partitions(settings, chosen, databases))
    except partitions.NotDrained as refused:
        click.echo(f"{topic} is not drained: {refused}", err=True)
        sys.exit(2)
    except (KafkaError, asyncpg.PostgresError, OSError) as error:
        click.echo(f"{topic}: {_text(error)}", err=True)
        sys.exit(1)
    click.echo(f"{topic} has {'now' if raised else 'already'} the {chosen.partitions} partitions")


def _administer(bootstrap: str, do: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    """Return the result of a request to a broker, or say what is wrong and exit."""
    security = KafkaSecurity.of(read_settings(KafkaSettings, kafka_bootstrap=bootstrap))

    async def connected() -> T:
        async with admin_client(bootstrap, security) as client:
            return await do(client)

    try:
        return asyncio.run(connected())
    except (KafkaError, OSError) as error:
        click.echo(f"{bootstrap}: {_text(error)}", err=True)
        sys.exit(1)


def _password_in(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        click.echo(f"{file}: {type(error).__name__}", err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)
    if not password:
        click.echo(f"{file}: is empty", err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)
    return password


def _text(error: Exception) -> str:
    """Return what a broker refused and why, or does not show, or that none could be asked."""
    if isinstance(error, BrokerResponseError | NotShown) and error.args:
        return f"{type(error).__name__}: {error.args[0]}"
    return type(error).__name__


if __name__ == "__main__":
    main()
