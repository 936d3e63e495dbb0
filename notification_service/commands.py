"""The operators' commands about deliveries."""

from typing import Any
from uuid import UUID

import click

from chassis.operations.commands.context import (
    CommandContext,
    act_options,
    as_json_option,
    asked,
    echo_json,
    echo_table,
    operator_of,
)
from notification_service.deliveries import State
from notification_service.queries import DeliverySearch, ListDeliveries
from notification_service.retry import RetryDelivery

_COLUMNS = ("id", "rule", "state", "attempts", "last_error", "address", "created_at")


def deliveries_commands(terminal: CommandContext[Any, Any]) -> click.Group:
    return click.Group(
        "deliveries",
        help="What was told to whom, and how far that has come.",
        commands=[list_deliveries, retry],
        context_settings={"obj": terminal},
    )


@click.command("list", help="Show deliveries, those planned last first.")
@click.option("--state", type=click.Choice([each.value for each in State]))
@click.option("--rule")
@click.option("--event-id", type=click.UUID)
@click.option("--correlation-id")
@click.option("--after", type=click.UUID, help="`next` of the page before.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@as_json_option
@click.pass_obj
def list_deliveries(
    terminal: CommandContext[Any, Any], /, *, as_json: bool, **options: Any
) -> None:
    search = asked(DeliverySearch, **options)
    page = terminal.run(lambda operations: ListDeliveries(operations.engine)(search))
    if as_json:
        echo_json(page)
        return
    echo_table(page.deliveries, _COLUMNS)
    if page.next is not None:
        click.echo(f"more: --after {page.next}")


@click.command("retry", help="Send one again that has failed.")
@click.argument("delivery_id", type=click.UUID)
@act_options
@click.pass_obj
def retry(terminal: CommandContext[Any, Any], /, delivery_id: UUID, by: str, why: str) -> None:
    operator = operator_of(by, why)
    terminal.run(lambda operations: RetryDelivery(operations)(delivery_id, operator))
    click.echo("it is sent again")
