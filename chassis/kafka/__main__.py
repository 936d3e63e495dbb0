"""``python -m chassis.kafka``: prepare the topics of the catalogue.

``create-topics`` creates those that are missing. ``raise-partitions`` gives one topic as many
partitions as the catalogue has now. Both sign in as KAFKA_SECURITY_PROTOCOL and the other settings
of Kafka say.
"""

import asyncio
import sys

import asyncpg
import click
from aiokafka.errors import BrokerResponseError, KafkaError

from chassis.kafka import partitions
from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.topics import create_topics
from chassis.settings import KafkaSettings, WrongSecretFile, read_settings, secret_of
from contracts.topics import TOPICS


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
    security = KafkaSecurity.of(read_settings(KafkaSettings, kafka_bootstrap=bootstrap))

    async def create() -> list[str]:
        async with admin_client(bootstrap, security) as client:
            cluster = await client.describe_cluster()
            brokers = len(cluster["brokers"])
            return await create_topics(client, brokers=brokers, replicas=replicas)

    try:
        created = asyncio.run(create())
    except (KafkaError, OSError) as error:
        click.echo(f"{bootstrap}: {_text(error)}", err=True)
        sys.exit(1)
    click.echo(f"created {', '.join(created)}" if created else "every topic exists already")


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


def _text(error: Exception) -> str:
    """Return what a broker refused and why, or that none could be asked."""
    if isinstance(error, BrokerResponseError) and error.args:
        return f"{type(error).__name__}: {error.args[0]}"
    return type(error).__name__


if __name__ == "__main__":
    main()
