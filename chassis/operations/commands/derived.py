"""Commands made from operators' operations, as ``routes`` makes HTTP routes."""

import getpass
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson
from pydantic import BaseModel, ValidationError

from chassis.operations.acts import Act, AnyOperation, Command, Query
from chassis.operations.commands.context import CommandContext
from chassis.operations.operator_log import Operator
from chassis.operations.terminal import Shown
from contracts.operations import OperatorAct

Body = TypeVar("Body", bound=BaseModel)


def group_of(
    name: str,
    about: str,
    operations: Iterable[AnyOperation],
    context: CommandContext,
) -> click.Group:
    """Make a group of the commands of these operations."""
    commands = [command_of(each, context) for each in operations if each.command is not None]
    return click.Group(name, help=about, commands=commands)


def command_of(operation: AnyOperation, context: CommandContext) -> click.Command:
    """Make the command of an operation.

    :raises ValueError: it has none
    """
    command: Command[Any] | None = operation.command
    if command is None:
        raise ValueError(f"{operation.route.name} has no command")

    def callback(*, as_json: bool = False, only_payload: bool = False, **given: Any) -> None:
        result = _whole_result_of(operation, given, context)
        if only_payload and command.payload_of is not None:
            click.echo(command.payload_of(result))
        else:
            echo(result, command.show(result), as_json=as_json)

    parameters = parameters_of(operation.input, (*operation.route.fields, *command.arguments))
    if command.payload_of is not None:
        parameters.append(PAYLOAD)
    if isinstance(operation, Act):
        parameters += REASON
    if operation.output is not None:
        parameters.append(JSON)
    return click.Command(
        command.name,
        params=parameters,
        callback=callback,
        help=f"{operation.summary}.\n\n{operation.description or ''}",
    )


def _whole_result_of(
    operation: AnyOperation, given: dict[str, Any], context: CommandContext
) -> Any:
    """Run an operation again until nothing is left over: no client waits here."""
    command: Command[Any] | None = operation.command
    result = _result_of(operation, dict(given), context)
    while command is not None and (changed := command.going_on(result)) is not None:
        click.echo(f"… {command.show(result).text.splitlines()[0]}", err=True)
        following = _result_of(operation, given | changed, context)
        result = command.sum_of(result, following)
    return result


def _result_of(operation: AnyOperation, given: dict[str, Any], context: CommandContext) -> Any:
    match operation:
        case Query():
            wanted = validated(operation.input, given)
            return context.run(lambda runtime: operation.run(runtime, wanted))
        case Act():
            operator = operator_of(given)
            asked = validated(operation.input, given)
            return context.run(lambda runtime: operation.run(runtime, asked, operator))


def parameters_of(input_: type[BaseModel], arguments: Sequence[str]) -> list[click.Parameter]:
    """Make an argument or an option of each field, as its JSON schema describes it."""
    schema = input_.model_json_schema()
    required = schema.get("required", ())
    parameters: list[click.Parameter] = []
    for name, field in schema["properties"].items():
        type_ = _type_of(field, schema)
        if name in arguments:
            parameters.append(click.Argument([name], type=type_))
        else:
            suffix = "-file" if isinstance(type_, _JsonFile) else ""
            option = click.Option(
                [f"--{name.replace('_', '-')}{suffix}", name],
                type=type_,
                required=name in required,
                default=field.get("default"),
                show_default="default" in field,
                help=field.get("description"),
            )
            parameters.append(option)
    return parameters


def _type_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> click.ParamType:
    kind = field.get("anyOf", [field])[0]  # of a field that may be null, the other kind
    if "$ref" in kind:
        kind = schema["$defs"][kind["$ref"].rpartition("/")[2]]
    match kind:
        case {"enum": names}:
            return click.Choice(names)
        case {"format": "uuid"}:
            return click.UUID
        case {"type": "integer"}:
            return click.IntRange(kind.get("minimum"), kind.get("maximum"))
        case {"type": "object"}:
            return _JsonFile()
        case _:
            return click.STRING


class _JsonFile(click.Path):
    """A file, given by its name, for the JSON in it."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        try:
            return orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            self.fail(f"{path}: {error}", param, ctx)


JSON: Final = click.Option(["--json", "as_json"], is_flag=True, help="For programs.")
PAYLOAD: Final = click.Option(
    ["--payload", "only_payload"],
    is_flag=True,
    help="Only what is handled or published, to edit it.",
)
REASON: Final = (
    click.Option(
        ["--by"],
        default=getpass.getuser,
        show_default="your name on this machine",
        help="Who acts.",
    ),
    click.Option(["--why"], required=True, help="The reason, which is kept for ever."),
)


def operator_of(given: dict[str, Any]) -> Operator:
    """Take who acts, and why, out of a command's options.

    :raises click.UsageError: the name or the reason can't be kept with the act
    """
    valid = validated(OperatorAct, {name: given.pop(name) for name in ("by", "why")})
    return Operator(valid.by, valid.why)


def validated(model: type[Body], given: Mapping[str, Any]) -> Body:
    """Make the input of a command's arguments and options.

    :raises click.UsageError: one of them is invalid
    """
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise click.UsageError(f"--{option}: {first['msg']}") from None


def echo(result: BaseModel | None, shown: Shown, *, as_json: bool) -> None:
    """Print a result, and exit with code 1 if it is a failure."""
    if as_json and result is not None:
        click.echo(result.model_dump_json(indent=2))
    else:
        click.echo(shown.text)
        if shown.warning is not None:
            click.echo(shown.warning, err=True)
    if shown.failed:
        raise SystemExit(1)
