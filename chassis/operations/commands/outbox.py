"""The operators' commands about the outbox."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import orjson

from chassis.operations.commands.context import (
    CommandContext,
    act_options,
    as_json_option,
    asked,
    echo_fields,
    echo_json,
    echo_table,
    operator_of,
    payload_in,
    payload_option,
)
from chassis.operations.outbox import OutboxSearch, SetAside

_COLUMNS = ("id", "topic", "subject", "sequence", "type", "size_bytes", "error_code", "edited")

_event_id = click.argument("event_id", type=click.UUID)


def outbox_commands(terminal: CommandContext[Any, Any]) -> click.Group:
    return click.Group(
        "outbox",
        help="What waits to be published, and what Kafka refused.",
        commands=[list_rows, show, edit, release, discard],
        context_settings={"obj": terminal},
    )


@click.command("list", help="Show the rows that were set aside, in their order.")
@click.option("--topic")
@click.option("--subject")
@click.option("--after", type=click.IntRange(0), default=0, help="`next` of the page before.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@as_json_option
@click.pass_obj
def list_rows(terminal: CommandContext[Any, Any], /, *, as_json: bool, **options: Any) -> None:
    search = asked(OutboxSearch, **options)
    page = terminal.run(lambda operations: SetAside(operations).page(search))
    if as_json:
        echo_json(page)
        return
    since = page.oldest_waiting_since
    click.echo(f"{page.waiting} wait" + (f", the oldest since {since}" if since else ""))
    if page.set_aside:
        echo_table(page.set_aside, _COLUMNS)
    if page.next is not None:
        click.echo(f"more: --after {page.next}")


@click.command("show", help="Show one of them, whole.")
@_event_id
@click.option("--payload", is_flag=True, help="Only what would be published, to edit it.")
@as_json_option
@click.pass_obj
def show(
    terminal: CommandContext[Any, Any], event_id: UUID, *, payload: bool, as_json: bool
) -> None:
    row = terminal.run(lambda operations: SetAside(operations).whole(event_id))
    if payload:
        click.echo(orjson.dumps(row.payload, option=orjson.OPT_INDENT_2))
    elif as_json:
        echo_json(row)
    else:
        echo_fields(row)


@click.command("edit", help="Change what is published; it stays the same event.")
@_event_id
@payload_option
@act_options
@click.pass_obj
def edit(
    terminal: CommandContext[Any, Any], event_id: UUID, payload_file: Path, by: str, why: str
) -> None:
    operator = operator_of(by, why)
    payload = payload_in(payload_file)
    _act(terminal, lambda rows: rows.edit(event_id, payload, operator), "edited")


@click.command("release", help="Publish it again, in its place.")
@_event_id
@act_options
@click.pass_obj
def release(terminal: CommandContext[Any, Any], event_id: UUID, by: str, why: str) -> None:
    operator = operator_of(by, why)
    _act(terminal, lambda rows: rows.release(event_id, operator), "released")


@click.command("discard", help="Never publish it; an event that says so has its place.")
@_event_id
@act_options
@click.pass_obj
def discard(terminal: CommandContext[Any, Any], event_id: UUID, by: str, why: str) -> None:
    operator = operator_of(by, why)
    _act(terminal, lambda rows: rows.discard(event_id, operator), "discarded")


def _act(
    terminal: CommandContext[Any, Any], work: Callable[[SetAside], Awaitable[None]], done: str
) -> None:
    terminal.run(lambda operations: work(SetAside(operations)))
    click.echo(done)
