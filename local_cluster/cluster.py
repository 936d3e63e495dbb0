"""The whole cluster: starts in parallel where order does not matter, stops in order."""

import asyncio
import shlex
import sys
import time
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any, Literal, NoReturn

import httpx

from chassis.web.client import direct_client
from local_cluster.control import Control
from local_cluster.directories import private_folder, remove_cluster_directory
from local_cluster.errors import ClusterError, PortTaken
from local_cluster.java import find_java
from local_cluster.kafka import Kafka
from local_cluster.kafka_artifacts import kafka_jars
from local_cluster.leftovers import reap
from local_cluster.logs import last_error
from local_cluster.ports import is_free, who_listens
from local_cluster.postgres import Postgres
from local_cluster.processes import ProcessSpec
from local_cluster.provisioning import Provisioning
from local_cluster.settings import REPOSITORY, Settings
from local_cluster.together import ReportStep, together
from local_cluster.topology import PORT_SETTINGS, Topology
from services import DeclaredService

# A machine may be busy; what keeps dying is found sooner.
_READY_WITHIN_S = 240.0
# A process that keeps dying will not become ready by waiting.
_MAX_DEATHS = 3
_LOOK_EVERY_S = 0.3
# Logical, so that tests can read the log as Debezium does.
_SHORT_LIVED_POSTGRES = {"fsync": "off", "wal_level": "logical"}
# Only the quick compiler: 2.6 s of processor time until it is up instead of 4.2.
_SHORT_LIVED_KAFKA = ("-XX:TieredStopAtLevel=1",)


class Cluster:
    """Kafka, PostgreSQL and the services of one directory."""

    def __init__(
        self,
        settings: Settings,
        report: ReportStep,
        *,
        lifeline: Path | None = None,
        short_lived: bool = False,
    ) -> None:
        """:param lifeline: a named pipe; when no process has it open any more, everything stops
        :param short_lived: starts sooner, but is slower later and not safe in a power cut
        """
        self.settings = settings
        self.control = Control(settings.directory)
        self.postgres = Postgres(
            settings.directory,
            settings.postgres_port,
            settings.cache_directory,
            _SHORT_LIVED_POSTGRES if short_lived else {},
        )
        self._kafka_options = _SHORT_LIVED_KAFKA if short_lived else ()
        self.topology = Topology(settings, self.postgres)
        self.provisioning = Provisioning(settings.directory, self.topology, report)
        self._report = report
        self._lifeline = lifeline

    @property
    def operator_password_file(self) -> Path:
        """Where the operator's password is."""
        return self.provisioning.operator_password_file

    async def up(
        self,
        *,
        kafka: bool = True,
        postgres: bool = True,
        services: bool = True,
        without: Collection[str] = (),
    ) -> None:
        """Start what is asked for and wait until it is ready; what runs as described keeps running.

        :param without: services that are stopped instead, so that they can be started by hand; the
            others are not waited for until they are ready, since that may need these
        :raises PortTaken: another program listens on a port of one of the processes
        :raises ClusterError: a process did not start; the message names it, its last error, its log
        """
        chosen = [each for each in self.topology.services if each.name not in without]
        names = [service.name for service in chosen] if services else []
        supervised = self.control.is_up()
        if not supervised:
            # First of all: processes that are left from before still have their ports.
            reap(self.settings.directory, self._report)
        self._refuse_taken_ports(["kafka"] * kafka + ["postgres"] * postgres + names)
        if not supervised:
            self.control.launch(self._lifeline)
        self.settings.remember_ports()
        specs = [self.topology.spec(service) for service in chosen]
        # Also one to be started by hand needs its schema.
        all_specs = map(self.topology.spec, self.topology.services)
        changed = services and bool(self.control.unlike(all_specs))

        async def databases_then_services() -> None:
            if postgres:
                await self._start_postgres(schemas=changed)
            if services:
                # They need their schemas to start; for Kafka they wait themselves.
                await asyncio.to_thread(self.control.stop, *without)
                await asyncio.to_thread(self.control.start, specs)
                page: Literal["ready", "live"] = "live" if without else "ready"
                await together(*(self._wait_until(page, service) for service in chosen))

        await together(
            *([self._start_kafka(topics=changed)] if kafka else []), databases_then_services()
        )

    def command_by_hand(self, service: DeclaredService) -> str:
        """Return the line that starts a service with this cluster's settings, in a shell.

        They are written to a file, since they contain secrets; a debugger can read it too.
        """
        file = self.settings.directory / "by-hand" / f"{service.name}.env"
        private_folder(file.parent)
        environment = self.topology.environment(service)
        environment[f"{service.prefix}LOG_FORMAT"] = "console"
        file.touch(mode=0o600)
        file.write_text(
            "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
        )
        return (
            f"(cd {shlex.quote(str(REPOSITORY))}; set -a; . {shlex.quote(str(file))};"
            f" exec {shlex.quote(sys.executable)} -m {service.module})"
        )

    def down(self) -> None:
        """Stop the services, then Kafka, then PostgreSQL, then processes left from before."""
        if self.control.is_up():
            try:
                self._stop_in_order()
            except ClusterError as error:
                self._report("supervisor", str(error))
        reap(self.settings.directory, self._report)

    def clean(self) -> None:
        """Stop everything and remove the directory with all data."""
        self.down()
        remove_cluster_directory(self.settings.directory)

    def kafka(self) -> Kafka:
        """Return Kafka, after checking its jars."""
        jars = kafka_jars(self.settings.cache_directory, lambda text: self._report("kafka", text))
        return Kafka(
            self.settings.directory,
            self.settings.kafka_port,
            self.settings.kafka_controller_port,
            find_java(),
            jars,
            self._kafka_options,
        )

    def _refuse_taken_ports(self, names: list[str]) -> None:
        running = self.control.status() if self.control.is_up() else {}
        taken = []
        for name in names:
            if name in running and running[name].pid:
                continue
            for field in PORT_SETTINGS[name]:
                port = getattr(self.settings, field)
                if not is_free(port):
                    purpose = Settings.model_fields[field].description
                    taken.append(
                        f"port {port} is in use{who_listens(port)}, but is the {purpose}: "
                        f"free it, or set LOCAL_{field.upper()} to another one"
                    )
        if len(taken) > 1:
            taken.append("LOCAL_PORT_OFFSET=100 moves all ports of this clone")
        if taken:
            raise PortTaken("\n".join(taken))

    async def _start_kafka(self, *, topics: bool) -> None:
        kafka = await asyncio.to_thread(self.kafka)
        await asyncio.to_thread(kafka.prepare)
        await self._start(kafka.spec())
        await self._unless_it_keeps_dying("kafka", kafka.wait_until_up())
        self._report("kafka", f"up on {kafka.bootstrap}")
        if topics:
            await self.provisioning.topics(kafka.bootstrap)

    async def _start_postgres(self, *, schemas: bool) -> None:
        await asyncio.to_thread(self.postgres.prepare)
        await self._start(self.postgres.spec())
        await self._unless_it_keeps_dying(
            "postgres", self.postgres.create_databases(self.topology.databases)
        )
        self._report("postgres", f"up on 127.0.0.1:{self.postgres.port}")
        if schemas:
            await self.provisioning.schemas()

    async def _start(self, spec: ProcessSpec) -> None:
        await asyncio.to_thread(self.control.start, [spec])

    async def _wait_until(self, page: Literal["ready", "live"], service: DeclaredService) -> None:
        await self._unless_it_keeps_dying(service.name, self._wait_for_answer(page, service))
        self._report(service.name, f"{page} on {self.topology.url(service.name)}")

    async def _wait_for_answer(self, page: str, service: DeclaredService) -> None:
        url = f"{self.topology.operators_url(service.name)}/health/{page}"
        deadline = time.monotonic() + _READY_WITHIN_S
        async with direct_client(timeout=5) as client:
            while (reason := await _not_ready_because(client, url)) is not None:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"{service.name} is not {page}: {reason} (see {self._log_of(service.name)})"
                    )
                await asyncio.sleep(0.1)

    async def _unless_it_keeps_dying(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Await this work, which needs a process; fail early if that dies again and again."""
        before = (await asyncio.to_thread(self.control.status))[name].restarts

        async def watch() -> NoReturn:
            while True:
                status = (await asyncio.to_thread(self.control.status))[name]
                if status.restarts - before >= _MAX_DEATHS:
                    log = self._log_of(name)
                    raise ClusterError(
                        f"{name} keeps dying ({status.last_exit}): {last_error(log)} (see {log})"
                    )
                await asyncio.sleep(_LOOK_EVERY_S)

        watching, working = asyncio.create_task(watch()), asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait((watching, working), return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in (watching, working):
                each.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)

    def _log_of(self, name: str) -> Path:
        return self.settings.directory / "logs" / f"{name}.log"

    def _stop_in_order(self) -> None:
        running = self.control.status()
        services = [name for name in running if name not in ("kafka", "postgres")]
        for group, names in (
            ("services", services),
            ("kafka", ["kafka"]),
            ("postgres", ["postgres"]),
        ):
            if any(running[name].state != "stopped" for name in names if name in running):
                self.control.stop(*names)
                self._report(group, "stopped")
        self.control.end()


async def _not_ready_because(client: httpx.AsyncClient, url: str) -> str | None:
    """Return the service's reason for not being ready, or None if it is ready."""
    try:
        answer = await client.get(url)
    except httpx.HTTPError as error:
        return f"does not answer ({type(error).__name__})"
    if answer.status_code == httpx.codes.OK:
        return None
    return answer.text[:500]
