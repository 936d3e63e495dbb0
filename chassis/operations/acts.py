"""An operator's act as data: its input, the coroutine that does it, its route and its command.

``routes`` and ``commands`` make HTTP and the command line from it.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from chassis.operations.terminal import Shown
from contracts.events import PRINTABLE

Input = TypeVar("Input", bound=BaseModel)
Output = TypeVar("Output", bound=BaseModel | None)


@dataclass(frozen=True, slots=True)
class Route:
    """Where HTTP offers an operation.

    :param path: below the router's prefix; in braces it has fields of the input
    :param name: the first part of the operation's id in the OpenAPI document
    """

    method: Literal["GET", "POST", "PUT"]
    path: str
    name: str

    @property
    def fields(self) -> list[str]:
        """Return the fields of the input that are part of the path."""
        return re.findall(r"{(\w+)}", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Generic[Output]):
    """What the command line calls an operation, and how it shows the result.

    :param arguments: fields of the input that are arguments and no options, beside the path's
    :param payload_of: what ``--payload`` prints in place of the result, to edit it
    :param going_on: of what a limited time left over: what changes in the input of the next run;
        None: nothing is left
    :param sum_of: the result of two runs
    """

    name: str
    show: Callable[[Output], Shown]
    arguments: tuple[str, ...] = ()
    payload_of: Callable[[Output], str] | None = None
    going_on: Callable[[Output], dict[str, Any] | None] = lambda _: None
    sum_of: Callable[[Output, Output], Output] = lambda _, last: last


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Input, Output]):
    """Something that operators may ask of a service.

    :param summary: one phrase; with ``description`` it documents the route and the command
    :param output: None: a success has no content
    :param command: None: a command is written by hand
    """

    summary: str
    description: str | None = None
    input: type[Input]
    output: type[Output] | None = None
    route: Route
    command: Command[Output] | None = None


@dataclass(frozen=True, kw_only=True)
class Query(Operation[Input, Output]):
    """An operation that changes nothing.

    :param of_people: it shows data of people, ids included, so that each use over HTTP is recorded
    """

    of_people: bool = True
    run: Callable[[AnyRuntime, Input], Awaitable[Output]]


@dataclass(frozen=True, kw_only=True)
class Act(Operation[Input, Output]):
    """An operation that changes something. It needs a reason, and is recorded with who did it."""

    run: Callable[[AnyRuntime, Input, Operator], Awaitable[Output]]


AnyOperation: TypeAlias = Query[Any, Any] | Act[Any, Any]


class NoInput(BaseModel):
    """The input of an operation that needs none."""


class ActReason(BaseModel):
    """Why an operator does something. It is kept with the act for ever."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(min_length=1, max_length=1_000, pattern=PRINTABLE)]
