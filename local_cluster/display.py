"""Prints the cluster's state for people."""

from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local_cluster.cluster import Cluster
from local_cluster.ops import command_for
from local_cluster.status import ClusterReport, ProcessReport
from local_cluster.topology import OPERATOR, SLACK_STAND_IN

_COLOURS = {
    "running": "green",
    "waiting": "yellow",
    "stopped": "red",
    "keeps dying": "red",
    "unsupervised": "red",
}


def print_summary(console: Console, cluster: Cluster, *, services: bool) -> None:
    """Print where everything is, the gateway first."""
    topology = cluster.topology
    places = {"Kafka": f"127.0.0.1:{cluster.settings.kafka_port}"}
    places["PostgreSQL"] = f"127.0.0.1:{cluster.settings.postgres_port}"
    places["logs"] = str(cluster.settings.directory / "logs")
    if services:
        front = {"gateway": topology.url("gateway"), "API page": f"{topology.url('gateway')}/docs"}
        front["for operators"] = f"{topology.operators_url('gateway')}/docs"
        if SLACK_STAND_IN in [service.name for service in topology.services]:
            front["Slack stand-in"] = topology.url(SLACK_STAND_IN)
        front["operator"] = f"{OPERATOR}, password in {cluster.operator_password_file}"
        places = front | places
    print_places(console, places)


def print_places(console: Console, places: Mapping[str, str]) -> None:
    """Print where each of these is, in this order."""
    console.print()
    for name, place in places.items():
        console.print(f"{name:<15} [bold]{escape(place)}[/]")


def print_status(console: Console, report: ClusterReport) -> None:
    """Show processes, their troubles, lag, outboxes and where the logs are."""
    if not report.up:
        console.print("nothing is up")
        return
    console.print(_processes(report.processes))
    for process in report.processes:
        if process.last_error:
            console.print(f"{process.name} said last: {process.last_error}", markup=False)
    if any(process.state == "unsupervised" for process in report.processes):
        console.print("the supervisor is gone: make up replaces what it left, make down ends it")
    if report.troubles:
        troubles = _table("process", "trouble with", "reason")
        for trouble in report.troubles:
            troubles.add_row(trouble.process, trouble.check, escape(trouble.reason))
        console.print(troubles)
        for command in dict.fromkeys(map(command_for, report.troubles)):
            console.print(f"see: {command}", markup=False)
    lags = _table("consumer group", "topic", "lag")
    for lag in report.lags or []:
        lags.add_row(lag.group, lag.topic, str(lag.records))
    console.print(lags if report.lags is not None else "Kafka does not report the consumers' lag")
    outboxes = _table("outbox of", "waiting")
    for service, depth in report.outboxes.items():
        outboxes.add_row(service, "not there yet" if depth is None else str(depth))
    console.print(outboxes)
    console.print(f"logs: {report.logs}")


def _processes(processes: list[ProcessReport]) -> Table:
    table = _table("process", "state", "uptime", "port", "MiB", "restarts", "last exit")
    for process in processes:
        table.add_row(
            process.name,
            f"[{_COLOURS[process.state]}]{process.state}[/]",
            str(timedelta(seconds=round(process.uptime_s))) if process.uptime_s else "",
            str(process.port or ""),
            str(process.memory_mib or ""),
            str(process.restarts),
            process.last_exit or "",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    return table


_NUMBERS = {"uptime", "port", "MiB", "restarts", "lag", "waiting"}
