"""The routes: operators look for records, and take one with its bytes."""

import base64
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from audit_service.queries import Filter, Place, Records, moment_of
from chassis.web.auth import Principal
from contracts.envelope import Instant, Name, ShortName

_LARGEST_ID: Final = 2**63 - 1


class Search(BaseModel):
    """What to look for: a record is found where all that is given holds."""

    # A filter that is misspelt must not find everything.
    model_config = ConfigDict(extra="forbid")

    subject: Annotated[Name | None, Field(description="The aggregate's id.")] = None
    type: Annotated[Name | None, Field(examples=["users.user-signed-up.v1"])] = None
    source: Annotated[Name | None, Field(examples=["/users"])] = None
    event_id: UUID | None = None
    correlation_id: ShortName | None = None
    topic: Annotated[Name | None, Field(examples=["users.user"])] = None
    valid: Annotated[bool | None, Field(description="False: what is no event of ours.")] = None
    occurred_from: Annotated[Instant | None, Field(alias="from", description="Inclusive.")] = None
    occurred_to: Annotated[Instant | None, Field(alias="to", description="Exclusive.")] = None
    after: Annotated[str | None, Field(max_length=64, description="`next` of the page before.")] = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class RecordBody(BaseModel):
    """A Kafka record, and what it turned out to be."""

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
            description="What its sequence says: next, after-gap, late (closes a gap), repeat"
            " (of a number) or forked (another history of the subject)."
        ),
    ]
    altered: Annotated[
        bool, Field(description="Other bytes were seen before under its source and id.")
    ]


class PageBody(BaseModel):
    """Records, those that occurred last first; ``next`` is null on the last page."""

    events: list[RecordBody]
    next: str | None


class WholeRecordBody(RecordBody):
    """A record with all that Kafka gave us."""

    key_base64: str | None
    headers: Annotated[
        list[tuple[str, str | None]], Field(description="Names, and values in base64.")
    ]
    payload_base64: Annotated[str | None, Field(description="The bytes that sha256 is of.")]
    event: Annotated[dict[str, Any] | None, Field(description="The payload, if it is valid.")]


def routes(records: Records, an_operator: Callable[..., Awaitable[Principal]]) -> APIRouter:
    router = APIRouter(prefix="/audit", dependencies=[Depends(an_operator)])

    @router.get("/events", summary="Look for events")
    async def get_events(search: Annotated[Search, Query()]) -> PageBody:
        wanted = Filter(**search.model_dump(exclude={"after", "limit"}))
        after = Place.parse(search.after) if search.after is not None else None
        page = await records.page(wanted, after=after, limit=search.limit)
        return PageBody(
            events=[_body(row) for row in page.rows],
            next=str(page.next) if page.next is not None else None,
        )

    @router.get("/events/{record_id}", summary="An event, whole", response_model=WholeRecordBody)
    async def get_event(record_id: Annotated[int, Path(ge=1, le=_LARGEST_ID)]) -> Response:
        row = await records.record(record_id)
        valid = row.invalid_reason is None
        body = _body(row).model_dump(mode="json") | {
            "key_base64": _base64(row.key),
            "headers": row.headers,
            "payload_base64": _base64(row.payload),
            # As it came: read and written again, numbers and repeated names might differ.
            "event": orjson.Fragment(row.payload) if valid else None,
        }
        return Response(orjson.dumps(body), media_type="application/json")

    return router


def _body(row: Row[*tuple[Any, ...]]) -> RecordBody:
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
        occurred_at=moment_of(row) if valid else None,
        sequence=row.sequence,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        traceparent=row.traceparent,
        verdict=row.verdict,
        altered=row.altered,
    )


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
