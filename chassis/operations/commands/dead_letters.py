"""The operators' commands about parked events."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import click
import orjson

from chassis.consuming.dead_letters import ParkReason
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
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letters import DeadLetters, ParkedFilter, ParkedSearch
from chassis.operations.dry_run import DryRun, DryRunBody
from chassis.operations.release import Release, ReleaseBody

_COLUMNS: Final = ("id", "subscriber", "subject", "sequence", "type", "reason", "error_code")
_COUNT_COLUMNS: Final = (
    "subscriber",
    "topic",
    "reason",
    "error_code",
    "events",
    "subjects",
    "oldest",
)

Command = TypeVar("Command", bound=Callable[..., Any])

_parked_id = click.argument("parked_id", type=click.UUID)


def _filters(command: Command) -> Command:
    for name in ("type", "error-code", "subject", "topic", "subscriber"):
        command = click.option(f"--{name}")(command)
    return click.option("--reason", type=click.Choice([each.value for each in ParkReason]))(command)


def parked_commands(terminal: CommandContext[Any, Any]) -> click.Group:
    @click.group("parked", help="What subscribers could not handle.")
    def group() -> None: ...

    _add_looking(group, terminal)
    _add_trying(group, terminal)
    _add_deciding(group, terminal)
    _add_releasing(group, terminal)
    return group


def _add_looking(group: click.Group, terminal: CommandContext[Any, Any]) -> None:
    @group.command("list", help="Show what is parked, the oldest first.")
    @_filters
    @click.option("--after", type=click.UUID, help="`next` of the page before.")
    @click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
    @as_json_option
    def list_events(*, as_json: bool, **given: Any) -> None:
        search = asked(ParkedSearch, **given)
        page = terminal.run(lambda operations: DeadLetters(operations).page(search))
        if as_json:
            return echo_json(page)
        echo_table(page.parked, _COLUMNS)
        if page.next is not None:
            click.echo(f"more: --after {page.next}")
        return None

    @group.command("count", help="Count what is parked, by subscriber, reason and error.")
    @_filters
    @as_json_option
    def count(*, as_json: bool, **given: Any) -> None:
        wanted = asked(ParkedFilter, **given)
        counts = terminal.run(lambda operations: DeadLetters(operations).count(wanted))
        if as_json:
            echo_json(counts)
        else:
            echo_table(counts.counts, _COUNT_COLUMNS)

    @group.command("show", help="Show one event, whole.")
    @_parked_id
    @click.option("--payload", is_flag=True, help="Only what is handled, to edit it.")
    @as_json_option
    def show(parked_id: UUID, *, payload: bool, as_json: bool) -> None:
        event = terminal.run(lambda operations: DeadLetters(operations).whole(parked_id))
        if payload:
            click.echo(event.edited_payload or event.payload or "")
        elif as_json:
            echo_json(event)
        else:
            echo_fields(event)


def _add_trying(group: click.Group, terminal: CommandContext[Any, Any]) -> None:
    @group.command("dry-run", help="Show what handling it would change; nothing is.")
    @_parked_id
    @as_json_option
    def dry_run(parked_id: UUID, *, as_json: bool) -> None:
        tried = terminal.run(lambda operations: DryRun(operations)(parked_id))
        if as_json:
            echo_json(tried)
        else:
            _echo_dry_run(tried)


def _add_deciding(group: click.Group, terminal: CommandContext[Any, Any]) -> None:
    @group.command("edit", help="Change what is handled; what came is kept.")
    @_parked_id
    @payload_option
    @act_options
    def edit(parked_id: UUID, payload_file: Path, by: str, why: str) -> None:
        operator = operator_of(by, why)
        payload = payload_in(payload_file)
        terminal.run(lambda operations: DeadLetters(operations).edit(parked_id, payload, operator))
        click.echo("edited")

    @group.command("discard", help="Never handle it.")
    @_parked_id
    @act_options
    def discard(parked_id: UUID, by: str, why: str) -> None:
        operator = operator_of(by, why)
        terminal.run(lambda operations: DeadLetters(operations).discard(parked_id, operator))
        click.echo("discarded")


def _add_releasing(group: click.Group, terminal: CommandContext[Any, Any]) -> None:
    @group.command("release", help="Handle the first of a subject, or with options all of one.")
    @click.argument("parked_id", type=click.UUID, required=False)
    @click.option("--subscriber")
    @click.option("--topic")
    @click.option("--subject")
    @act_options
    @as_json_option
    def release(
        parked_id: UUID | None,
        subscriber: str | None,
        topic: str | None,
        subject: str | None,
        by: str,
        why: str,
        *,
        as_json: bool,
    ) -> None:
        operator = operator_of(by, why)
        if parked_id is not None and not (subscriber or topic or subject):
            _echo_released(
                terminal.run(lambda operations: Release(operations, operator).one(parked_id)),
                as_json=as_json,
            )
        elif parked_id is None and subscriber and topic and subject:
            place = (subscriber, topic, subject)

            async def until_nothing_goes(operations: ServiceRuntime[Any, Any]) -> ReleaseBody:
                return await _all_of(lambda: Release(operations, operator).subject(*place))

            _echo_released(terminal.run(until_nothing_goes), as_json=as_json)
        else:
            raise click.UsageError("Name one event, or --subscriber, --topic and --subject.")

    @group.command("apply", help="Handle it all the same, out of order, also a forked one.")
    @_parked_id
    @act_options
    @as_json_option
    def apply(parked_id: UUID, by: str, why: str, *, as_json: bool) -> None:
        operator = operator_of(by, why)
        applied = terminal.run(lambda operations: Release(operations, operator).apply(parked_id))
        _echo_released(applied, as_json=as_json)


async def _all_of(release: Callable[[], Awaitable[ReleaseBody]]) -> ReleaseBody:
    """Release again and again: no client's patience ends here."""
    done = await release()
    while done.left and done.stopped_at is None:
        more = await release()
        done = more.model_copy(update={"released": done.released + more.released})
    return done


def _echo_released(done: ReleaseBody, *, as_json: bool) -> None:
    """Say what was released; one that stays parked ends the command with 1."""
    stopped = done.stopped_at
    if as_json:
        echo_json(done)
    else:
        click.echo(f"{done.released} released, {done.left} left")
        if stopped is not None:
            click.echo(f"stopped at {stopped.id}: {stopped.error_code}: {stopped.error_message}")
    if stopped is not None:
        raise SystemExit(1)


def _echo_dry_run(tried: DryRunBody) -> None:
    if tried.stays_parked is not None:
        click.echo(f"stays parked: {tried.stays_parked.error_code}")
        click.echo(tried.stays_parked.error_message)
        return
    click.echo("can be handled")
    for table in tried.changes:
        click.echo(
            f"{table.table}: {table.inserted} inserted, {table.updated} updated,"
            f" {table.deleted} deleted"
        )
        for row in table.rows or []:
            for sign, shown in (("-", row.before), ("+", row.after)):
                if shown is not None:
                    click.echo(f"  {sign} {orjson.dumps(shown).decode()}")
    for told in tried.events or []:
        click.echo(f"tells {told.topic}: {orjson.dumps(told.event).decode()}")
