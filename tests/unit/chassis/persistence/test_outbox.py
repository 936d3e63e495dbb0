"""The events that one unit of work publishes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from chassis.correlation import CorrelationContext, use_correlation
from chassis.persistence.outbox import Outbox, OutboxRow
from contracts.envelope import Envelope, decode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def outbox() -> Outbox:
    return Outbox("/users", lambda: NOW)


def append(outbox: Outbox, sequence: int = 1) -> None:
    user_id = uuid4()
    outbox.append(
        UserSignedUpV1(user_id=user_id, username="ada"),
        topic=USERS_USER,
        subject=user_id,
        sequence=sequence,
        occurred_at=NOW,
    )


def envelopes(rows: Sequence[OutboxRow]) -> list[Envelope]:
    return [decode(row["payload"]) for row in rows]


class TestAppending:
    def test_keeps_the_exact_record_with_its_columns(self) -> None:
        box = outbox()

        append(box, 3)

        [row] = box.take_rows()
        envelope = decode(row["payload"])
        assert (row["id"], row["aggregateid"], row["type"], row["sequence"]) == (
            envelope.id,
            envelope.subject,
            envelope.type,
            envelope.sequence,
        )
        assert row["aggregatetype"] == "users.user"
        assert row["headers"]["id"] == str(row["id"])
        assert list(box.take_rows()) == []

    def test_takes_the_current_correlation(self) -> None:
        box = outbox()

        with use_correlation(CorrelationContext("one")):
            append(box)
        with use_correlation(CorrelationContext("two", "caused")):
            append(box)

        one, two = envelopes(box.take_rows())
        assert (one.correlationid, one.causationid) == ("one", None)
        assert (two.correlationid, two.causationid) == ("two", "caused")

    def test_without_a_correlation_makes_one_for_each_unit_of_work(self) -> None:
        first, second = outbox(), outbox()

        append(first)
        append(first)
        append(second)

        ids = [each.correlationid for box in (first, second) for each in envelopes(box.take_rows())]
        assert ids[0] == ids[1] != ids[2]
