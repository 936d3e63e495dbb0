"""What an operator puts in the place of an event's payload: still the same event."""

from collections.abc import Mapping
from typing import Any

from chassis.domain import BrokenField, InvalidFields


def broken_payload(code: str, message: str) -> InvalidFields:
    """Return what is raised over a payload that can't be taken."""
    return InvalidFields(BrokenField("payload", code, message))


def check_same(said_and_known: Mapping[str, tuple[Any, Any]]) -> None:
    """Let a payload pass that says of each attribute what is known of the event.

    :raises InvalidFields: it is another event
    """
    for name, (said, known) in said_and_known.items():
        if said != known:
            raise broken_payload("another-event", f"{name}: must stay {known}")
