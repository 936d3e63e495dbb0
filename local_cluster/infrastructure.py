"""Kafka and PostgreSQL of one directory: prepared and started side by side."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from local_cluster.control import Control
from local_cluster.java import find_java
from local_cluster.kafka import Kafka
from local_cluster.kafka_artifacts import kafka_jars
from local_cluster.postgres import Postgres
from local_cluster.settings import Settings

Report = Callable[[str, str], None]


class Infrastructure:
    """What the services stand on."""

    def __init__(
        self, settings: Settings, postgres_settings: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self.postgres = Postgres(
            settings.directory,
            settings.postgres_port,
            settings.cache_directory,
            postgres_settings,
        )

    async def start(self, control: Control, report: Report, databases: Iterable[str]) -> None:
        """Have both up side by side, and each database with its login."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.start_kafka(control, report))
            group.create_task(self.start_postgres(control, report, databases))

    def kafka(self, report: Report) -> Kafka:
        """Return Kafka with jars that were checked just now."""
        jars = kafka_jars(self._settings.cache_directory, lambda what: report("kafka", what))
        return Kafka(
            self._settings.directory,
            self._settings.kafka_port,
            self._settings.kafka_controller_port,
            find_java(),
            jars,
        )

    async def start_kafka(self, control: Control, report: Report) -> None:
        """Have Kafka up."""
        kafka = await asyncio.to_thread(self.kafka, report)
        await asyncio.to_thread(kafka.prepare)
        report("kafka", "starting")
        await asyncio.to_thread(control.start, [kafka.spec()])
        await kafka.wait_until_up()
        report("kafka", f"up on {kafka.bootstrap}")

    async def start_postgres(
        self, control: Control, report: Report, databases: Iterable[str]
    ) -> None:
        """Have PostgreSQL up, and each database with its login."""
        await asyncio.to_thread(self.postgres.prepare)
        report("postgres", "starting")
        await asyncio.to_thread(control.start, [self.postgres.spec()])
        await self.postgres.create_databases(databases)
        report("postgres", f"up on 127.0.0.1:{self.postgres.port}")


def private_directory(path: Path) -> Path:
    """Make the cluster's directory, open to its owner alone, and return its full path."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.resolve()
