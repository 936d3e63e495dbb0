"""The deliveries as operators see them."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from chassis.operations.context import AnyRuntime
from chassis.operations.waiting import COUNT_AT_MOST, counted
from chassis.persistence.database import Database
from chassis.web.paging import PageLimit, Search, matching, page_of
from contracts.events import ShortText, Text
from notification_service.deliveries import State
from notification_service.tables import deliveries

_FILTERS: Final = {
    name: deliveries.c[name] for name in ("state", "rule", "event_id", "correlation_id")
}


class DeliveryView(BaseModel):
    """A delivery and its state."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    rule: str
    event_id: UUID
    medium: str
    address: str
    text: str
    state: State
    attempts: int
    last_error: Annotated[str | None, Field(description="Slack's error code, if it gave one.")]
    next_attempt_at: datetime | None
    unsure_since: Annotated[
        datetime | None, Field(description="When the first attempt that may have arrived began.")
    ]
    maybe_repeated: Annotated[
        bool,
        Field(description="Sent again after an attempt that may have arrived, but was not found."),
    ]
    message_id: Annotated[str | None, Field(description="Slack's ts of the message.")]
    correlation_id: str
    traceparent: str | None
    created_at: datetime
    sent_at: datetime | None


class DeliveryPage(BaseModel):
    """Deliveries, newest first; ``next`` is null on the last page."""

    deliveries: list[DeliveryView]
    next: UUID | None


class DeliverySearch(Search):
    """Which deliveries to find, and which page of them."""

    state: State | None = None
    rule: Annotated[Text | None, Field(examples=["slack-growth-user-signed-up"])] = None
    event_id: UUID | None = None
    correlation_id: ShortText | None = None
    after: Annotated[UUID | None, Field(description="`next` of the page before.")] = None
    limit: PageLimit = 50


async def list_deliveries(runtime: AnyRuntime, search: DeliverySearch) -> DeliveryPage:
    """Return a page of the deliveries that match, newest first."""
    query = select(deliveries).where(*matching(search, _FILTERS))
    query = query.order_by(deliveries.c.id.desc()).limit(search.limit + 1)
    if search.after is not None:
        query = query.where(deliveries.c.id < search.after)
    async with runtime.database.connect() as connection:
        rows = (await connection.execute(query)).all()
    page = page_of(rows, search.limit, key=lambda row: row.id)
    return DeliveryPage(
        deliveries=[DeliveryView.model_validate(row) for row in page.items], next=page.next
    )


async def why_failed(database: Database) -> str | None:
    """Return how many deliveries have failed, counted up to a bound, or None if none has."""
    async with database.connect() as connection:
        counts = (await connection.execute(_FAILED)).all()
    if not counts:
        return None
    return "failed: " + ", ".join(f"{counted(number)} {error}" for error, number in counts)


_some: Final = (
    select(deliveries.c.last_error)
    .where(deliveries.c.state == State.FAILED)
    .limit(COUNT_AT_MOST)
    .subquery()
)
_FAILED: Final = (
    select(_some.c.last_error, func.count())
    .group_by(_some.c.last_error)
    .order_by(func.count().desc(), _some.c.last_error)
)
