"""The operators' commands of a service."""

from collections.abc import Sequence
from typing import Any

import click

from chassis.operations.commands.context import CommandContext
from chassis.operations.commands.dead_letters import parked_commands
from chassis.operations.commands.offsets import progress_commands
from chassis.operations.commands.outbox import outbox_commands
from chassis.operations.commands.sequences import sequences_command
from chassis.operations.context import Service


def operations_commands(service: Service[Any, Any]) -> Sequence[click.Command]:
    """Make the commands that a service's command line gets."""
    context = CommandContext(service)
    return (
        outbox_commands(context),
        parked_commands(context),
        progress_commands(context),
        sequences_command(context),
    )
