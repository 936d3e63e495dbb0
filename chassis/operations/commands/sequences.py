"""The operators' command about the sequences."""

from typing import Any

import click

from chassis.operations.commands.context import (
    CommandContext,
    as_json_option,
    asked,
    echo_json,
    echo_table,
)
from chassis.operations.sequences import MOST, Sequences, SequencesSearch


def sequences_command(terminal: CommandContext[Any, Any]) -> click.Command:
    @click.command("sequences", help="Show the last sequence of each aggregate of a topic.")
    @click.argument("topic")
    @click.option("--after", type=click.UUID, help="`next` of the page before.")
    @click.option("--limit", type=click.IntRange(1, MOST), default=500, show_default=True)
    @as_json_option
    def sequences(*, as_json: bool, **options: Any) -> None:
        search = asked(SequencesSearch, **options)
        page = terminal.run(lambda operations: Sequences(operations).page(search))
        if as_json:
            echo_json(page)
            return
        echo_table(page.sequences, ("subject", "last_sequence"))
        if page.next is not None:
            click.echo(f"more: --after {page.next}")

    return sequences
