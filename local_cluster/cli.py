"""The command line: the cluster, Kafka's own console consumer, and a new service's skeleton."""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict

import click
from pydantic import ValidationError
from rich.console import Console

from local_cluster.cluster import Cluster
from local_cluster.demo import show_journey
from local_cluster.directories import cluster_lock
from local_cluster.display import print_status, print_summary
from local_cluster.errors import ClusterError, PortTaken
from local_cluster.kafka import CONSOLE_CONSUMER
from local_cluster.logs import show_logs
from local_cluster.new_service import write_service
from local_cluster.ops import operate
from local_cluster.ports import is_free
from local_cluster.settings import REPOSITORY, Settings
from local_cluster.status import read_status
from local_cluster.together import ReportStep

FAILED, WRONG, NOT_UP = 1, 2, 3

_console = Console(highlight=False, soft_wrap=True)


class _Group(click.Group):
    """Prints an expected error as one line, and exits with its code."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except ClusterError as error:
            click.echo(str(error), err=True)
            context.exit(WRONG if isinstance(error, PortTaken) else FAILED)
        except OSError as error:
            click.echo(f"{error.filename or 'the system'}: {error.strerror}", err=True)
            context.exit(FAILED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Run Kafka, PostgreSQL and the services on this machine.

    Data, secrets and logs are in .local/. Ports and directories are settings (LOCAL_KAFKA_PORT, …);
    local_cluster/README.md lists them.

    Exit codes: 0 well, 1 failed, 2 a port is taken or a setting is wrong, 3 nothing is up.
    """
    try:
        context.obj = Cluster(Settings(), _progress())
    except ValidationError as error:
        for each in error.errors(include_url=False):
            setting = "LOCAL_" + "_".join(map(str, each["loc"])).upper()
            click.echo(f"{setting}: {each['msg']}", err=True)
        context.exit(WRONG)


@main.command()
@click.option("--only-infrastructure", is_flag=True, help="Kafka and PostgreSQL, no services.")
@click.pass_obj
def up(cluster: Cluster, *, only_infrastructure: bool) -> None:
    """Start what is not running, and print where everything is."""
    began = time.monotonic()
    with cluster_lock(cluster.settings.directory):
        asyncio.run(cluster.up(services=not only_infrastructure))
    print_summary(_console, cluster, time.monotonic() - began, services=not only_infrastructure)


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
@click.argument("process", required=False)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option("-n", "--lines", default=50, show_default=True, help="How many lines of each log.")
@click.pass_obj
def logs(cluster: Cluster, *, process: str | None, follow: bool, lines: int) -> None:
    """Show the log of one process, or of all."""
    found = sorted((cluster.settings.directory / "logs").glob("*.log"))
    chosen = [log for log in found if process in (None, log.stem)]
    if not chosen:
        names = ", ".join(log.stem for log in found) or "none yet"
        raise ClusterError(f"no log of {process or 'any process'}; there are: {names}")
    for name, line in show_logs(chosen, lines, follow=follow):
        click.echo(line if process else f"{name:<15} {line}")


@main.command()
@click.pass_obj
def clean(cluster: Cluster) -> None:
    """Stop everything and remove .local/ with all data, secrets and logs."""
    with cluster_lock(cluster.settings.directory):
        cluster.clean()
    _console.print(f"{cluster.settings.directory} is removed")


@main.command()
@click.pass_obj
def demo(cluster: Cluster) -> None:
    """Start what is not running, sign someone up, and show the journey of that event."""
    with cluster_lock(cluster.settings.directory):
        asyncio.run(cluster.up())
    asyncio.run(show_journey(cluster, _console))


@main.command()
@click.argument("name")
def new_service(name: str) -> None:
    """Write a service that runs, with its tests: new-service loyalty."""
    for path in write_service(REPOSITORY, name):
        _console.print(f"[dim]wrote[/] {path}")
    _console.print("\nnow: make format contracts docs, and make test")


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def verify(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    """Check that nothing is lost: python -m verification, for this cluster."""
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
    if is_free(kafka.port):
        raise ClusterError(f"Kafka is not up on {kafka.bootstrap}")  # the tool would retry for ever
    command = kafka.tool(CONSOLE_CONSUMER, "--bootstrap-server", kafka.bootstrap, *arguments)
    os.execv(command[0], command)  # noqa: S606 (without a shell on purpose)


def _progress() -> ReportStep:
    began = time.monotonic()

    def report(name: str, text: str) -> None:
        _console.print(f"[dim]{time.monotonic() - began:5.1f} s[/]  [bold]{name:<15}[/] {text}")

    return report
