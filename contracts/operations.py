"""What operators did and read: every service publishes it, to its own ``<service>.operations``.

The subject of an act is what they acted on: a parked event, an outbox row, a subscriber, a
partition that its consumer can't read on, a timer, a delivery. That of a read is who read.
"""

from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import Field

from contracts.events import PRINTABLE, EventWithheld, IntegrationEvent, ShortText, Text

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="In hexadecimal digits.")]


class OperatorAct(IntegrationEvent):
    """Who did it, and why."""

    by: Annotated[Text, Field(description="The operator's user id, or their name on the machine.")]
    why: Annotated[str, Field(min_length=1, max_length=1_000, pattern=PRINTABLE)]


#: How large the new bytes of an edit may be that are in its event.
MOST_PAYLOAD_BYTES: Final = 65_536


class Edit(OperatorAct):
    """Other bytes were put in an event's place, and what they are.

    The fields that may be null are null in events that older versions of a service published.
    """

    payload_sha256: Annotated[Sha256, Field(description="Of the new bytes.")]
    replaced_sha256: Annotated[
        Sha256 | None,
        Field(description="Of what was there before, an earlier edit or none; null: no bytes."),
    ] = None
    payload: Annotated[
        str | None,
        Field(
            max_length=MOST_PAYLOAD_BYTES,
            description="The new bytes, which are UTF-8; null: they are more than 64 KiB.",
        ),
    ] = None
    payload_id: Annotated[
        UUID | None,
        Field(
            description="Of larger bytes: the row of the table `edited_payloads` of the service's"
            " database that has them."
        ),
    ] = None


class ParkedEventAct(OperatorAct):
    """Something was done with an event that a subscriber could not handle."""

    subscriber: Text
    topic: Text
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    parked_subject: Annotated[
        Text | None, Field(description="Null where the bytes do not contain it.")
    ]
    parked_event_id: UUID | None
    parked_type: Text | None


class ParkedEventReleasedV1(ParkedEventAct):
    """It was handled, in the order of its aggregate."""

    event_type: ClassVar[str] = "operations.parked-event-released.v1"


class ParkedEventAppliedV1(ParkedEventAct):
    """It was handled out of the order of its aggregate."""

    event_type: ClassVar[str] = "operations.parked-event-applied.v1"


class ParkedEventParkedAgainV1(ParkedEventAct):
    """It was tried again, and failed again."""

    event_type: ClassVar[str] = "operations.parked-event-parked-again.v1"

    error_code: Text


class ParkedEventEditedV1(Edit, ParkedEventAct):
    """Other bytes will be handled in its place; the received ones are kept."""

    event_type: ClassVar[str] = "operations.parked-event-edited.v1"


class ParkedEventDiscardedV1(ParkedEventAct):
    """It will not be handled by this subscriber."""

    event_type: ClassVar[str] = "operations.parked-event-discarded.v1"


class OutboxRowAct(OperatorAct):
    """Something was done with an event that Kafka refused."""

    topic: Text
    row_subject: Text
    row_sequence: Annotated[int, Field(ge=1)]
    row_type: Text


class OutboxRowReleasedV1(OutboxRowAct):
    """It is published again, in its place."""

    event_type: ClassVar[str] = "operations.outbox-row-released.v1"


class OutboxRowEditedV1(Edit, OutboxRowAct):
    """Other bytes will be published in its place; the first are kept until then."""

    event_type: ClassVar[str] = "operations.outbox-row-edited.v1"


class OutboxRowDiscardedV1(OutboxRowAct):
    """It will not be published; a withheld event has its sequence."""

    event_type: ClassVar[str] = "operations.outbox-row-discarded.v1"


class SubscriberAct(OperatorAct):
    """Something was done with all of a subscriber's partitions."""

    subscriber: Text
    topic: Text


class SubscriberPausedV1(SubscriberAct):
    """It takes no more events until it is resumed."""

    event_type: ClassVar[str] = "operations.subscriber-paused.v1"


class SubscriberResumedV1(SubscriberAct):
    """It continues where it was paused."""

    event_type: ClassVar[str] = "operations.subscriber-resumed.v1"


class SubscriberRestartedV1(SubscriberAct):
    """Its state was emptied, and it starts again at the beginning of the topic."""

    event_type: ClassVar[str] = "operations.subscriber-restarted.v1"


class StoppedConsumerAct(OperatorAct):
    """Something was decided about a consumer that had stopped at some offset of a partition."""

    topic: Text
    partition: Annotated[int, Field(ge=0)]


class ParkingAllowedV1(StoppedConsumerAct):
    """All that it can't handle may be parked, however many aggregates that stops."""

    event_type: ClassVar[str] = "operations.parking-allowed.v1"

    below_offset: Annotated[int, Field(ge=0, description="Of events before this offset.")]


class BatchSkippedV1(StoppedConsumerAct):
    """A batch that could not be read is passed over by all subscribers."""

    event_type: ClassVar[str] = "operations.batch-skipped.v1"

    begin_offset: Annotated[int, Field(ge=0)]
    end_offset: Annotated[int, Field(ge=1, description="The next offset that is read.")]
    raw_sha256: Annotated[
        Sha256 | None, Field(description="Of the bytes; null: the broker did not give them.")
    ]


class HoldEndedV1(StoppedConsumerAct):
    """A subscriber reads a topic again that was made again, or that had lost events."""

    event_type: ClassVar[str] = "operations.hold-ended.v1"

    subscriber: Text
    next_offset: Annotated[int, Field(ge=0, description="The offset that it reads from.")]


class RecordToleratedV1(OperatorAct):
    """Bytes on a topic that are no event are accepted as such; others at their place are not."""

    event_type: ClassVar[str] = "operations.record-tolerated.v1"

    topic: Text
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    value_sha256: Annotated[Sha256, Field(description="Of the record's value; none: of no bytes.")]


class TimerAct(OperatorAct):
    """Something was done with a timer that could not be handled when it was due."""

    timer_id: UUID
    timer_kind: Text
    timer_subject: Annotated[UUID, Field(description="Its aggregate; of none, the timer's id.")]


class TimerReleasedV1(TimerAct):
    """A worker handles it again."""

    event_type: ClassVar[str] = "operations.timer-released.v1"


class TimerDiscardedV1(TimerAct):
    """It will not be handled."""

    event_type: ClassVar[str] = "operations.timer-discarded.v1"


#: How many ids a read names at most.
MOST_READ_IDS: Final = 8


class DataReadV1(IntegrationEvent):
    """An operator asked for data of other people. It is written before they are answered.

    The subject is the operator, so that what one of them read is counted without a gap.
    """

    event_type: ClassVar[str] = "operations.data-read.v1"

    by: Annotated[UUID, Field(description="The operator's user id.")]
    route: Annotated[ShortText, Field(description="With the names of its parameters.")]
    ids: Annotated[
        tuple[Annotated[str, Field(pattern="^[0-9a-f-]{1,36}$")], ...],
        Field(
            max_length=MOST_READ_IDS,
            description="What the path names, and the UUIDs in the query; none: a search without.",
        ),
    ]


class DeliveryRetriedV1(OperatorAct):
    """A message that its receiver had refused is sent again."""

    event_type: ClassVar[str] = "operations.delivery-retried.v1"

    delivery_id: UUID
    rule: Text


class OperationsEventWithheldV1(EventWithheld):
    """An event about an operator's act was discarded; this one has its sequence."""

    event_type: ClassVar[str] = "operations.event-withheld.v1"


ACTS: tuple[type[IntegrationEvent], ...] = (
    ParkedEventReleasedV1,
    ParkedEventAppliedV1,
    ParkedEventParkedAgainV1,
    ParkedEventEditedV1,
    ParkedEventDiscardedV1,
    OutboxRowReleasedV1,
    OutboxRowEditedV1,
    OutboxRowDiscardedV1,
    SubscriberPausedV1,
    SubscriberResumedV1,
    SubscriberRestartedV1,
    ParkingAllowedV1,
    BatchSkippedV1,
    HoldEndedV1,
    RecordToleratedV1,
    TimerReleasedV1,
    TimerDiscardedV1,
    OperationsEventWithheldV1,
)
"""The acts in every service's topic; `DeliveryRetriedV1` is in the notification service's only."""
