"""The command line: the cluster, Kafka's own console consumer, and a new service's skeleton."""

import asyncio
import io
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict

import click
from pydantic import ValidationError
from rich.console import Console

from local_cluster import compose
from local_cluster.cluster import Cluster
from local_cluster.demo import addresses_of, show_journey
from local_cluster.directories import cluster_lock
from local_cluster.display import print_status, print_summary
from local_cluster.environment import forget_settings_of_libraries, inherited
from local_cluster.errors import ClusterError, PortTaken
from local_cluster.kafka import CONSOLE_CONSUMER
from local_cluster.logs import find_logs, show_logs
from local_cluster.misspelt import misspelt_settings
from local_cluster.new_service import write_service
from local_cluster.ops import operate
from local_cluster.settings import REPOSITORY, Settings
from local_cluster.status import read_status
from local_cluster.together import ReportStep

FAILED, WRONG, NOT_UP = 1, 2, 3
_INTERRUPTED = 130  # as a shell reports an end by SIGINT

# They choose the ports; the others find the cluster at those that it has.
_STARTING = ("up", "demo")

_console = Console(highlight=False, soft_wrap=True)


class _Group(click.Group):
    """Prints an expected error as one line, and exits with its code."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except ClusterError as error:
            click.echo(str(error), err=True)
            context.exit(WRONG if isinstance(error, PortTaken) else FAILED)
        except KeyboardInterrupt:
            click.echo(_what_is_still_up(context.obj), err=True)
            context.exit(_INTERRUPTED)
        except OSError as error:
            click.echo(f"{error.filename or 'the system'}: {error.strerror}", err=True)
            context.exit(FAILED)


def _what_is_still_up(cluster: Cluster | None) -> str:
    try:
        up = (
            [each.name for each in cluster.control.status().values() if each.pid] if cluster else []
        )
    except ClusterError:
        up = []
    if not up:
        return "\ninterrupted; nothing is up"
    return (
        f"\ninterrupted; still up: {', '.join(up)}. make down stops them, make up starts the rest"
    )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Run Kafka, PostgreSQL and the services on this machine.

    Data, secrets and logs are in .local/. Ports and directories are settings (LOCAL_KAFKA_PORT, …);
    local_cluster/README.md lists them.

    Exit codes: 0 well, 1 failed, 2 a port is taken or a setting is wrong, 3 nothing is up.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not have all our characters
    forget_settings_of_libraries()
    starting = context.invoked_subcommand in _STARTING
    try:
        settings = Settings().with_remembered_ports(starting=starting)
        context.obj = Cluster(settings, _progress())
    except ValidationError as error:
        for each in error.errors(include_url=False):
            setting = "LOCAL_" + "_".join(map(str, each["loc"])).upper()
            click.echo(f"{setting}: {each['msg'].removeprefix('Value error, ')}", err=True)
        context.exit(WRONG)
    if starting:
        for line in misspelt_settings():
            click.echo(f"warning: {line}", err=True)


@main.command()
@click.option("--only-infrastructure", is_flag=True, help="Kafka and PostgreSQL, no services.")
@click.option("--without", default="", help="Services to start by hand, comma separated.")
@click.pass_obj
def up(cluster: Cluster, *, only_infrastructure: bool, without: str) -> None:
    """Start what is not running, and print where everything is."""
    began = time.monotonic()
    left_out = without.replace(",", " ").split()
    by_hand = cluster.topology.named(left_out)
    with cluster_lock(cluster.settings.directory):
        asyncio.run(cluster.up(services=not only_infrastructure, without=left_out))
        commands = [cluster.command_by_hand(service) for service in by_hand]
    print_summary(_console, cluster, services=not only_infrastructure)
    _console.print(f"\nup in {time.monotonic() - began:.1f} s", style="bold green")
    for service, command in zip(by_hand, commands, strict=True):
        _console.print(f"\nstart {service.name} by hand:\n{command}", markup=False)


@main.command()
@click.pass_obj
def down(cluster: Cluster) -> None:
    """Stop everything in order; the data stays."""
    with cluster_lock(cluster.settings.directory):
        cluster.down()
    _console.print("everything is down")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def status(cluster: Cluster, *, as_json: bool) -> None:
    """Show processes, their troubles, consumers' lag, outboxes, and where the logs are."""
    report = asyncio.run(read_status(cluster))
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        print_status(_console, report)
    if not report.well:
        sys.exit(FAILED if report.up else NOT_UP)


@main.command()
@click.argument("processes", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--lines", default=100, show_default=True, help="How many lines.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one object on each line.")
@click.pass_obj
def logs(
    cluster: Cluster, *, processes: tuple[str, ...], follow: bool, lines: int, as_json: bool
) -> None:
    """Show the logs of these processes, or of all, in the order of time (UTC)."""
    chosen = find_logs(cluster.settings.directory / "logs", processes)
    width = max(len(log.stem) for log in chosen)
    # Ctrl-C is how following ends.
    with suppress(KeyboardInterrupt):
        for line in show_logs(chosen, lines, follow=follow):
            click.echo(line.as_json() if as_json else line.for_people(width))


@main.command()
@click.pass_obj
def clean(cluster: Cluster) -> None:
    """Stop everything and remove .local/ with all data, secrets and logs."""
    with cluster_lock(cluster.settings.directory):
        cluster.clean()
    _console.print(f"{cluster.settings.directory} is removed")


@main.command()
@click.option("--compose", "in_containers", is_flag=True, help="In docker compose's containers.")
@click.pass_obj
def demo(cluster: Cluster, *, in_containers: bool) -> None:
    """Start what is not running, sign someone up, and show the journey of that event."""
    if in_containers:
        compose.up()
        found = compose.addresses()
        asyncio.run(show_journey(found, _console))
        compose.print_addresses(_console, found)
        _console.print("\n[bold]docker compose down[/] stops it; the data stays")
        return
    with cluster_lock(cluster.settings.directory):
        asyncio.run(cluster.up())
    asyncio.run(show_journey(addresses_of(cluster), _console))
    print_summary(_console, cluster, services=True)
    _console.print("\n[bold]make down[/] stops it, [bold]make status[/] shows how it is")


@main.command()
@click.argument("name")
def new_service(name: str) -> None:
    """Write a service that runs, with its tests: new-service loyalty."""
    for path in write_service(REPOSITORY, name):
        _console.print(f"[dim]wrote[/] {path}")
    _console.print("\nnow: make format contracts docs, and make test")


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--compose", "in_containers", is_flag=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def verify(cluster: Cluster, arguments: tuple[str, ...], *, in_containers: bool) -> None:
    """Check that nothing is lost: python -m verification, for this cluster (or --compose)."""
    if in_containers:
        compose.verify(arguments)
    if not cluster.control.is_up():
        click.echo("nothing is up", err=True)
        sys.exit(NOT_UP)
    command = [sys.executable, "-m", "verification", *arguments]
    os.chdir(REPOSITORY)
    environment = cluster.topology.verification_environment()
    os.execve(command[0], command, environment)  # noqa: S606 (without a shell on purpose)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("service")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ops(cluster: Cluster, service: str, arguments: tuple[str, ...]) -> None:
    """Run an operators' command of a service here, or of all: ops accounts parked list."""
    operate(cluster, service, arguments)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def kafka_console_consumer(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    """Run Kafka's own console consumer here: … -- --topic users.user --from-beginning."""
    kafka = cluster.kafka()
    # Of this cluster: another clone's may listen on the port. And the tool would retry for ever.
    if not cluster.control.is_up() or "kafka" not in cluster.control.running():
        raise ClusterError(f"Kafka is not up on {kafka.bootstrap}")
    command = kafka.tool(CONSOLE_CONSUMER, "--bootstrap-server", kafka.bootstrap, *arguments)
    environment = inherited(cluster.settings.directory)
    os.execve(command[0], command, environment)  # noqa: S606 (without a shell on purpose)


def _progress() -> ReportStep:
    began = time.monotonic()

    def report(name: str, text: str) -> None:
        _console.print(f"[dim]{time.monotonic() - began:5.1f} s[/]  [bold]{name:<15}[/] {text}")

    return report
