"""The operators' HTTP routes, made from their operations: the same at every service."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Query as FromQuery
from pydantic import BaseModel, create_model

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
from chassis.operations.acts import Act, ActReason, AnyOperation, Query
from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from chassis.operations.tolerate import TOLERATE
from chassis.web.auth import Principal
from chassis.web.security_log import mark_reading

AskOperator = Callable[..., Awaitable[Principal]]
"""A dependency that returns an operator, or answers 401 or 403."""


def operations_routes(runtime: AnyRuntime, operator: AskOperator) -> APIRouter:
    """Make the routes below ``/ops``: each asks for an operator."""
    operations: Sequence[AnyOperation] = (
        *outbox.OPERATIONS,
        *dead_letters.OPERATIONS,
        dry_run.DRY_RUN,
        release.RELEASE_SUBJECT,
        *release_together.OPERATIONS,
        *one_record.OPERATIONS,
        release.RELEASE_ONE,
        release.APPLY,
        *offsets.OPERATIONS,
        *stopped_consumers.OPERATIONS,
        TOLERATE,
        *timers.OPERATIONS,
        sequences.SEQUENCES,
    )
    # Not a router in a router: logs and metrics would have the inner one's paths, without /ops.
    router = APIRouter(prefix="/ops", tags=["operations"])
    return routes_of(operations, runtime, operator, router)


def routes_of(
    operations: Iterable[AnyOperation],
    runtime: AnyRuntime,
    operator: AskOperator,
    router: APIRouter | None = None,
) -> APIRouter:
    """Make the routes of these operations: each asks for an operator.

    :param router: they are added to it; by default to a new one
    """
    router = router or APIRouter()
    # /parked/release is no /parked/{parked_id}.
    for each in sorted(operations, key=lambda each: len(each.route.fields)):
        router.add_api_route(
            each.route.path,
            _endpoint(each, runtime, operator),
            methods=[each.route.method],
            name=each.route.name,
            summary=each.summary,
            description=each.description,
            response_model=each.output,
            status_code=204 if each.output is None else 200,
            dependencies=[Depends(operator)],
        )
    return router


def _endpoint(
    operation: AnyOperation, runtime: AnyRuntime, operator: AskOperator
) -> Callable[..., Awaitable[Any]]:
    """Return the function that FastAPI calls for a request, which it reads by the signature.

    A query has its input in the path or in the query string; an act in the path and in the body.
    """
    match operation:
        case Query():
            return _query_endpoint(operation, runtime)
        case Act():
            return _act_endpoint(operation, runtime, operator)


def _query_endpoint(query: Query[Any, Any], runtime: AnyRuntime) -> Callable[..., Awaitable[Any]]:
    async def endpoint(search: BaseModel | None = None, **path: Any) -> Any:
        return await query.run(runtime, search or query.input(**path))

    mark_reading(endpoint, of_people=query.of_people)
    is_search = query.input.model_fields.keys() - query.route.fields
    search = {"search": Annotated[query.input, FromQuery()]} if is_search else {}
    return _with_signature(endpoint, query, search)


def _act_endpoint(
    act: Act[Any, Any], runtime: AnyRuntime, operator: AskOperator
) -> Callable[..., Awaitable[Any]]:
    async def endpoint(who: Principal, body: ActReason, **path: Any) -> Any:
        fields = path | dict(body)
        by = Operator(str(who.id), fields.pop("why"))
        return await act.run(runtime, act.input(**fields), by)

    who = Annotated[Principal, Depends(operator)]
    return _with_signature(endpoint, act, {"body": _body_of(act), "who": who})


def _body_of(act: Act[Any, Any]) -> type[ActReason]:
    """Return the model of an act's request: the reason, and the input that is not in the path."""
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in act.input.model_fields.items()
        if name not in act.route.fields
    }
    if not fields:
        return ActReason
    name, doc = act.input.__name__, act.input.__doc__
    return create_model(name, __base__=ActReason, __doc__=doc, **fields)


def _with_signature(
    endpoint: Callable[..., Awaitable[Any]], operation: AnyOperation, beside: dict[str, Any]
) -> Callable[..., Awaitable[Any]]:
    """Have FastAPI see the path's fields and these parameters."""
    known = operation.input.model_fields
    annotations = {name: known[name].annotation for name in operation.route.fields} | beside
    signature = Signature(
        [
            Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation)
            for name, annotation in annotations.items()
        ]
    )
    endpoint.__signature__ = signature  # type: ignore[attr-defined]
    return endpoint
