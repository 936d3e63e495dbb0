"""What the operators' commands share: the service's database, who acts and why, and tables."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import click
import orjson
from pydantic import BaseModel, ValidationError

from chassis import failpoints
from chassis.clock import utc_now
from chassis.domain import DomainError
from chassis.operations.acts import Operator
from chassis.operations.context import Service, ServiceRuntime
from chassis.persistence.database import is_away, pool
from chassis.persistence.transactor import Work
from chassis.settings import ServiceSettings, read_settings
from chassis.telemetry import configure_logging
from contracts.operations import OperatorAct

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")
W = TypeVar("W", bound=Work)
Body = TypeVar("Body", bound=BaseModel)
Command = TypeVar("Command", bound=Callable[..., Any])

payload_option = click.option(
    "--payload-file",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The whole event, as JSON.",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@dataclass(frozen=True)
class CommandContext(Generic[S, W]):
    """Runs operators' commands straight on the database of one service."""

    service: Service[S, W]

    def run(self, work: Callable[[ServiceRuntime[S, W]], Awaitable[T]]) -> T:
        """Do the work, and return its result; a refusal is printed, and exits with code 1."""
        service = self.service
        settings = read_settings(service.settings)
        configure_logging(service.name, settings)
        failpoints.belong_to(service.name)

        async def on_database() -> T:
            async with pool(settings, f"{service.name}-operator") as engine:
                return await work(ServiceRuntime(service, settings, engine, utc_now))

        try:
            return asyncio.run(on_database())
        except DomainError as error:
            _refuse(f"{error.code}: {error}")
        except Exception as error:
            if not is_away(error):
                raise
            _refuse(f"the database is away: {type(error).__name__}")


def act_options(command: Command) -> Command:
    """Ask for ``--why``, and by whom it is done."""
    command = click.option("--why", required=True, help="The reason, which is kept for ever.")(
        command
    )
    return click.option(
        "--by", default=getpass.getuser, show_default="your name on this machine", help="Who acts."
    )(command)


def operator_of(by: str, why: str) -> Operator:
    """Return who acts.

    :raises click.UsageError: the name or the reason can't be kept with the act
    """
    told = asked(OperatorAct, by=by, why=why)
    return Operator(told.by, told.why)


def asked(model: type[Body], **options: Any) -> Body:
    """Return what the options ask for.

    :raises click.UsageError: one of them makes no sense
    """
    try:
        return model(**options)
    except ValidationError as error:
        broken = error.errors()[0]
        option = str(broken["loc"][0]).replace("_", "-")
        raise click.UsageError(f"--{option}: {broken['msg']}") from None


def payload_in(file: Path) -> Any:
    """Return the JSON that a file holds.

    :raises click.UsageError: it holds none
    """
    try:
        return orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"{file}: {error}") from None


def echo_json(body: BaseModel) -> None:
    click.echo(body.model_dump_json(indent=2))


def echo_table(rows: Iterable[BaseModel], columns: Sequence[str]) -> None:
    """Show these fields of each row, one row a line."""
    lines = [[name.replace("_", " ").upper() for name in columns]]
    for row in rows:
        values = row.model_dump(mode="json")
        lines.append(["-" if values[name] is None else str(values[name]) for name in columns])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def echo_fields(body: BaseModel) -> None:
    """Show all of one thing, one field a line."""
    values = body.model_dump(mode="json")
    width = max(map(len, values))
    for name, value in values.items():
        click.echo(f"{name.replace('_', ' ').ljust(width)}  {'-' if value is None else value}")


def _refuse(why: str) -> NoReturn:
    click.echo(why, err=True)
    raise SystemExit(1)
