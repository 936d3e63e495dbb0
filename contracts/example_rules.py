"""What every example must be: there for each event, under its type, with an id of its time."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from contracts.envelope import EncodedEvent, decode
from contracts.events import IntegrationEvent

_FILE = "contracts/example_events.py"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def example_mistakes(
    events: Mapping[str, type[IntegrationEvent]], examples: Mapping[str, EncodedEvent]
) -> Iterator[str]:
    """Yield one line for each mistake, which says what to do about it."""
    for event_type in events.keys() - examples.keys():
        name = events[event_type].__name__
        yield (
            f"{event_type}: has no example; add to EXAMPLES in {_FILE}:"
            f"  {name}.event_type: _record({name}(…), subject=…, after_ms=…),"
        )
    seen: dict[UUID, str] = {}
    for event_type, record in examples.items():
        envelope = decode(record.payload)
        if event_type not in events:
            yield (
                f"{event_type}: has an example and no topic; add its model to a topic's events in"
                f" contracts/topics.py, or remove it from EXAMPLES in {_FILE}"
            )
        if envelope.type != event_type:
            yield f"{event_type}: its example in {_FILE} is an event of type {envelope.type}"
        # A UUIDv7 begins with its time in milliseconds.
        if envelope.id.int >> 80 != (envelope.time - _EPOCH) // timedelta(milliseconds=1):
            yield (
                f"{event_type}: the id of its example in {_FILE} has another time than the event;"
                " leave id out there, and it is made from after_ms"
            )
        if (other := seen.setdefault(envelope.id, event_type)) != event_type:
            yield (
                f"{event_type}: its example in {_FILE} has the id of that of {other}; give it"
                " another after_ms"
            )
