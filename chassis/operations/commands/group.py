"""The operators' commands of a service."""

from collections.abc import Sequence
from typing import Any

import click

from chassis.operations import (
    dead_letters,
    dry_run,
    offsets,
    one_record,
    outbox,
    release,
    release_together,
    sequences,
    stopped_consumers,
    timers,
)
from chassis.operations.commands.context import CommandContext
from chassis.operations.commands.derived import command_of, group_of
from chassis.operations.commands.release import release_command
from chassis.operations.context import Service
from chassis.operations.tolerate import TOLERATE


def operations_commands(service: Service[Any, Any]) -> Sequence[click.Command]:
    """Make the commands that a service's command line gets."""
    context = CommandContext(service)
    parked = group_of(
        "parked",
        "What subscribers could not handle.",
        (
            *dead_letters.OPERATIONS,
            dry_run.DRY_RUN,
            *release_together.OPERATIONS,
            *one_record.OPERATIONS,
            release.APPLY,
        ),
        context,
    )
    parked.add_command(release_command(context))
    return (
        group_of(
            "outbox",
            "What waits to be published, and what Kafka refused.",
            outbox.OPERATIONS,
            context,
        ),
        parked,
        group_of(
            "progress",
            "How far each subscriber is.",
            (*offsets.OPERATIONS, *stopped_consumers.OPERATIONS, TOLERATE),
            context,
        ),
        group_of(
            "timers",
            "What was due and could not be handled.",
            timers.OPERATIONS,
            context,
        ),
        command_of(sequences.SEQUENCES, context),
    )
