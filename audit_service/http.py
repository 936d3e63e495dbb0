"""The routes: operators search records, and read one with its bytes."""

import base64
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field

from audit_service.queries import Records, RecordSearch, occurred_at_of
from chassis.persistence.database import Row
from chassis.web.auth import Principal

_LARGEST_ID: Final = 2**63 - 1


class RecordBody(BaseModel):
    """A Kafka record, and what the service found out about it."""

    id: int
    topic: str
    partition: int
    offset: int
    sha256: Annotated[str, Field(description="Of the payload, in hexadecimal digits.")]
    recorded_at: datetime
    valid: Annotated[bool, Field(description="Whether it is an event of ours.")]
    invalid_reason: str | None
    event_id: UUID | None
    source: str | None
    type: str | None
    subject: str | None
    occurred_at: datetime | None
    sequence: int | None
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    verdict: Annotated[
        str | None,
        Field(
            description="How its sequence follows the subject's last one: next, after-gap, late"
            " (closes a gap), repeat (of a number) or forked (another history of the subject)."
        ),
    ]
    altered: Annotated[
        bool, Field(description="Other bytes were recorded before under its source and id.")
    ]
    client_correlation_id: Annotated[
        str | None,
        Field(
            description="What a client calls the request that published it. Nobody has verified it."
        ),
    ]


class PageBody(BaseModel):
    """Records, newest first; ``next`` is null on the last page."""

    events: list[RecordBody]
    next: str | None


class WholeRecordBody(RecordBody):
    """A record with everything that Kafka delivered."""

    number: Annotated[
        int | None,
        Field(description="1, 2, 3 and so on, without gaps; null until a moment after its commit."),
    ]
    key_base64: str | None
    headers: Annotated[
        list[Annotated[list[str | None], Field(min_length=2, max_length=3)]],
        Field(description="Names, and values in base64; and a name's bytes, if it is not UTF-8."),
    ]
    payload_base64: Annotated[str | None, Field(description="The bytes that sha256 is of.")]
    event: Annotated[dict[str, Any] | None, Field(description="The payload, if it is valid.")]


def routes(records: Records, operator: Callable[..., Awaitable[Principal]]) -> APIRouter:
    router = APIRouter(prefix="/audit", dependencies=[Depends(operator)])

    @router.get("/events", summary="Search events")
    async def get_events(search: Annotated[RecordSearch, Query()]) -> PageBody:
        page = await records.page(search)
        return PageBody(
            events=[_body(row) for row in page.items],
            next=str(page.next) if page.next is not None else None,
        )

    @router.get("/events/{record_id}", summary="An event, whole", response_model=WholeRecordBody)
    async def get_event(record_id: Annotated[int, Path(ge=1, le=_LARGEST_ID)]) -> Response:
        row = await records.record(record_id)
        valid = row.invalid_reason is None
        body = _body(row).model_dump(mode="json") | {
            "number": row.number,
            "key_base64": _base64(row.key),
            "headers": row.headers,
            "payload_base64": _base64(row.payload),
            # Byte for byte. Parsing and writing may change numbers and drop repeated names.
            "event": orjson.Fragment(row.payload) if valid else None,
        }
        return Response(orjson.dumps(body), media_type="application/json")

    return router


def _body(row: Row) -> RecordBody:
    valid = row.invalid_reason is None
    return RecordBody(
        id=row.position,
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        sha256=row.sha256.hex(),
        recorded_at=row.recorded_at,
        valid=valid,
        invalid_reason=row.invalid_reason,
        event_id=row.event_id,
        source=row.source,
        type=row.type,
        subject=row.subject,
        occurred_at=occurred_at_of(row) if valid else None,
        sequence=row.sequence,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        traceparent=row.traceparent,
        verdict=row.verdict,
        altered=row.altered,
        client_correlation_id=row.client_correlation_id,
    )


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
