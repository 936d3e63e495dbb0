"""``dry_run=true``: what a command would do, answered without doing it."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, SecretStr

from chassis.persistence.transactor import Transact
from chassis.web.auth import Principal
from chassis.web.idempotency import IdempotentCommand, Work, idempotent
from chassis.web.problems import refusals

T = TypeVar("T")
W = TypeVar("W", bound=Work)

_DESCRIPTION: Final = (
    "Answer what would happen, with status 200, and change nothing. Ids in the answer are of"
    " nothing that exists."
)


class _Undone(Exception):
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result


class DryRun(Generic[W]):
    """Runs a body and writes what it saved as a transactor does, and rolls everything back."""

    def __init__(self, transact: Transact[W]) -> None:
        self._transact = transact

    async def __call__(self, body: Callable[[W], Awaitable[T]], /) -> T:
        """Return what the body returned.

        :raises Exception: the body's own, or what refuses its writes
        """

        async def undone(work: W) -> T:
            result = await body(work)
            await work.flush()
            raise _Undone(result)

        try:
            return await self._transact(undone)
        except _Undone as done:
            result: Any = done.result
            return result  # type: ignore[no-any-return]


class DryCommand(IdempotentCommand[W]):
    """Answers a command that was rolled back."""

    async def __call__(
        self, body: Callable[[W], Awaitable[T]], answer: Callable[[T], Response]
    ) -> Response:
        """Return the answer that the command would have, with the status 200."""
        response = await super().__call__(body, answer)
        response.status_code = 200
        return response


def once_or_dry_run(
    transact: Transact[W],
    *,
    secret: SecretStr,
    now: Callable[[], datetime],
    principal: Callable[..., Awaitable[Principal]],
) -> Callable[..., Awaitable[IdempotentCommand[W]]]:
    """Return a dependency that provides the route's command: once per key, or a dry run.

    A query parameter that the route does not have is refused, and one that is given twice: where
    ``dry_run`` is misspelt, the command would be carried out.

    The parameters are those of :func:`chassis.web.idempotency.idempotent`.
    """
    once = idempotent(transact, secret=secret, now=now, principal=principal)

    async def command(
        request: Request,
        *,
        command: Annotated[IdempotentCommand[W], Depends(once)],
        dry_run: Annotated[bool, Query(description=_DESCRIPTION)] = False,
    ) -> IdempotentCommand[W]:
        _refuse_other_parameters(request)
        if not dry_run:
            return command
        if command.has_key:
            raise HTTPException(400, "a dry run is not repeated: send it without Idempotency-Key")
        return DryCommand(DryRun(transact), (), (), now())

    return command


def with_dry_run(body: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how the API document describes what a route answers beside its success.

    :param body: of a dry run's answer
    :param statuses: of the refusals
    """
    would_be = {"model": body, "description": "What would happen, with `dry_run=true`"}
    return {200: would_be, **refusals(400, *statuses)}


def _refuse_other_parameters(request: Request) -> None:
    given = [name for name, _value in request.query_params.multi_items()]
    if given in ([], ["dry_run"]):
        return
    route = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = {each["name"] for each in route["parameters"] if each["in"] == "query"}
    broken = [
        ("extra_forbidden", name, "Extra inputs are not permitted")
        for name in dict.fromkeys(given)
        if name not in known
    ] + [("repeated", name, "must be given once") for name in known if given.count(name) > 1]
    if broken:
        raise RequestValidationError(
            [{"type": type_, "loc": ("query", name), "msg": msg} for type_, name, msg in broken]
        )
