"""The operators' commands, the same at every service: they work where HTTP does not."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from chassis.operations.operable import Operable
from chassis.operations.outbox_commands import outbox_commands
from chassis.operations.parked_commands import parked_commands
from chassis.operations.progress_commands import progress_commands
from chassis.operations.sequences_commands import sequences_command
from chassis.operations.terminal import Terminal
from chassis.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def operations_commands(
    settings: type[S], operable: Callable[[S], Operable[Any]]
) -> Sequence[click.Command]:
    """Make the commands that a service's command line gets."""
    terminal = Terminal(settings, operable)
    return (
        outbox_commands(terminal),
        parked_commands(terminal),
        progress_commands(terminal),
        sequences_command(terminal),
    )
