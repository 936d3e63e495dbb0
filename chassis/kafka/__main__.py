"""``python -m chassis.kafka``: prepare the topics of the catalogue.

``create-topics`` creates those that are missing. ``raise-partitions`` gives one topic as many
partitions as the catalogue has now.
"""

import asyncio
import os
import sys

import asyncpg
import click
from aiokafka.errors import KafkaError

from chassis.kafka import partitions
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from chassis.settings import KafkaSettings
from contracts.topics import TOPICS


@click.group(help=__doc__)
def main() -> None: ...


@main.command("create-topics")
@click.option("--bootstrap", required=True, help="host:port of a broker")
def create_topics_command(bootstrap: str) -> None:
    """Create the topics of the catalogue that are missing."""

    async def create() -> list[str]:
        async with admin_client(bootstrap) as client:
            cluster = await client.describe_cluster()
            return await create_topics(client, brokers=len(cluster["brokers"]))

    try:
        created = asyncio.run(create())
    except (KafkaError, OSError) as error:
        click.echo(f"{bootstrap}: {type(error).__name__}", err=True)
        sys.exit(1)
    click.echo(f"created {', '.join(created)}" if created else "every topic exists already")


@main.command("raise-partitions")
@click.argument("topic", type=click.Choice([topic.name for topic in TOPICS]), metavar="TOPIC")
@click.option("--bootstrap", required=True, help="host:port of a broker")
def raise_partitions_command(topic: str, bootstrap: str) -> None:
    """Give a topic as many partitions as the catalogue has, once all its events are handled.

    Keys move to other partitions then. So the command changes nothing and ends with exit code 2
    while the topic's owner publishes, or while a consumer has not read all of it. It looks into
    the databases of the owner and of the consumers: USERS_DATABASE_URL and so on.
    """
    chosen = next(each for each in TOPICS if each.name == topic)
    variables = {
        service: f"{service.upper()}_DATABASE_URL" for service in {chosen.owner, *chosen.consumers}
    }
    unset = sorted(name for name in variables.values() if not os.environ.get(name))
    if unset:
        click.echo(f"not set: {', '.join(unset)}", err=True)
        sys.exit(2)
    databases = {service: os.environ[name] for service, name in variables.items()}
    settings = KafkaSettings(kafka_bootstrap=bootstrap)
    try:
        raised = asyncio.run(partitions.raise_partitions(settings, chosen, databases))
    except partitions.NotDrained as refused:
        click.echo(f"{topic} is not drained: {refused}", err=True)
        sys.exit(2)
    except (KafkaError, asyncpg.PostgresError, OSError) as error:
        click.echo(f"{topic}: {type(error).__name__}", err=True)
        sys.exit(1)
    click.echo(f"{topic} has {'now' if raised else 'already'} the {chosen.partitions} partitions")


if __name__ == "__main__":
    main()
