"""The command ``parked release``: one event, or all of a subject however long that takes."""

from typing import Any
from uuid import UUID

import click

from chassis.operations import release
from chassis.operations.commands.context import CommandContext
from chassis.operations.commands.derived import JSON, REASON, echo, operator_of, validated
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import OneParkedEvent
from chassis.operations.operator_log import Operator
from chassis.operations.slices import ReleaseBody


def release_command(context: CommandContext) -> click.Command:
    def callback(*, parked_id: UUID | None, as_json: bool, **given: Any) -> None:
        operator = operator_of(given)
        if parked_id is not None and not any(given.values()):
            one = OneParkedEvent(parked_id=parked_id)
            result = context.run(lambda runtime: release.release_one(runtime, one, operator))
        elif parked_id is None and all(given.values()):
            subject = validated(release.SubjectRelease, given)
            result = context.run(lambda runtime: _release_all(runtime, subject, operator))
        else:
            raise click.UsageError("Name one event, or --subscriber, --topic and --subject.")
        echo(result, release.shown(result), as_json=as_json)

    return click.Command(
        "release",
        params=[
            click.Argument(["parked_id"], type=click.UUID, required=False),
            *(click.Option([f"--{name}"]) for name in release.SubjectRelease.model_fields),
            *REASON,
            JSON,
        ],
        callback=callback,
        help="Handle the first event of a subject, or with the options all of a subject.",
    )


async def _release_all(
    runtime: AnyRuntime, subject: release.SubjectRelease, operator: Operator
) -> ReleaseBody:
    """Release again until nothing is left or an event stops it: no client waits here."""
    total = await release.release_subject(runtime, subject, operator)
    while total.left and total.stopped_at is None:
        more = await release.release_subject(runtime, subject, operator)
        total = more.model_copy(update={"released": total.released + more.released})
    return total
