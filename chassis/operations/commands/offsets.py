"""The operators' commands about the subscribers' progress."""

from collections.abc import Awaitable, Callable
from typing import Any

import click

from chassis.operations.acts import Operator
from chassis.operations.commands.context import (
    CommandContext,
    act_options,
    as_json_option,
    echo_json,
    echo_table,
    operator_of,
)
from chassis.operations.offsets import Progress, SubscriberKey

_COLUMNS = ("subscriber", "topic", "lag", "parked", "paused_since", "restartable")


def progress_commands(terminal: CommandContext[Any, Any]) -> click.Group:
    return click.Group(
        "progress",
        help="How far each subscriber is.",
        commands=[
            show,
            _act("pause", "paused", Progress.pause, "Give a subscriber no more events."),
            _act("resume", "resumed", Progress.resume, "Let it go on where it was paused."),
            _act(
                "restart",
                "restarted",
                Progress.restart,
                "Empty its state, and have it begin at the beginning of the topic.",
            ),
        ],
        context_settings={"obj": terminal},
    )


@click.command("show", help="Show how far each is, and how much it has before it.")
@as_json_option
@click.pass_obj
def show(terminal: CommandContext[Any, Any], /, *, as_json: bool) -> None:
    body = terminal.run(lambda operations: Progress(operations).all())
    if as_json:
        echo_json(body)
        return
    echo_table(body.subscribers, _COLUMNS)
    if body.kafka is not None:
        click.echo(body.kafka, err=True)


def _act(
    name: str,
    done: str,
    act: Callable[[Progress, SubscriberKey, Operator], Awaitable[None]],
    about: str,
) -> click.Command:
    @click.command(name, help=about)
    @click.argument("subscriber")
    @click.argument("topic")
    @act_options
    @click.pass_obj
    def command(
        terminal: CommandContext[Any, Any], /, subscriber: str, topic: str, by: str, why: str
    ) -> None:
        operator = operator_of(by, why)
        terminal.run(lambda operations: act(Progress(operations), (subscriber, topic), operator))
        click.echo(done)

    return command
