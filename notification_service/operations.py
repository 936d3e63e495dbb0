"""The operators' routes and commands for deliveries."""

from typing import Final

from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Query, Route
from chassis.operations.terminal import Shown
from notification_service.queries import DeliveryPage, DeliverySearch, list_deliveries
from notification_service.retry import OneDelivery, retry

_COLUMNS: Final = ("id", "rule", "state", "attempts", "last_error", "address", "created_at")


def _page_shown(found: DeliveryPage) -> Shown:
    return terminal.page(found.deliveries, _COLUMNS, found.next)


OPERATIONS: Final = (
    Query(
        summary="Which messages were planned, and how far each has come",
        input=DeliverySearch,
        output=DeliveryPage,
        run=list_deliveries,
        route=Route("GET", "/notifications/deliveries", "get_deliveries"),
        command=Command(name="list", show=_page_shown),
    ),
    Act(
        summary="Send one again that failed",
        description="Send it again at once. If it may have arrived, search for it first.",
        input=OneDelivery,
        run=retry,
        route=Route("POST", "/notifications/deliveries/{delivery_id}/retry", "post_delivery_retry"),
        command=Command(name="retry", show=terminal.done("it is sent again")),
    ),
)
