"""What a subscriber has seen of each aggregate: it drops repeats and notices what is missing.

One row an aggregate, so it grows with them and never with events.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Text,
    Uuid,
    bindparam,
    cast,
    delete,
    func,
    literal,
    null,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.records import Label
from chassis.rows import insert_rows
from chassis.tables import inbox, inbox_missing, parked

# A jump of billions can only be a producer's mistake: it is noticed, not written out.
LARGEST_GAP: Final = 10_000

_NO_ID: Final = UUID(int=0)


class Verdict(StrEnum):
    """What an event is to a subscriber, given what it has seen of the subject."""

    NEXT = "next"
    AFTER_GAP = "after-gap"
    LATE = "late"
    REPEAT = "repeat"
    FORKED = "forked"
    BEHIND = "behind"


@dataclass(slots=True)
class Seen:
    """What one subscriber has seen of one subject; ``last`` is 0 before the first event."""

    last: int = 0
    greatest_id: UUID = _NO_ID
    missing: set[int] = field(default_factory=set)
    parked: bool = False

    def judge(self, sequence: int, event_id: UUID, *, from_beginning: bool) -> Verdict:
        """Say what the event is, and count it as seen.

        Order of the rules: a hole that is filled, what was there before, what waits for its
        turn, what is new.
        """
        # One that starts late takes the first that it sees for the next.
        expected = self.last + 1 if self.last or from_beginning else sequence
        if sequence in self.missing:
            self.missing.discard(sequence)
            verdict = Verdict.LATE
        elif sequence < expected:
            # UUIDv7 grows with time: a number used again later is another history of the
            # producer, restored from an older copy.
            verdict = Verdict.FORKED if event_id > self.greatest_id else Verdict.REPEAT
        elif sequence > expected:
            self.missing.update(range(max(expected, sequence - LARGEST_GAP), sequence))
            verdict = Verdict.AFTER_GAP
        else:
            verdict = Verdict.NEXT
        self.last = max(self.last, sequence)
        self.greatest_id = max(self.greatest_id, event_id)
        if self.parked and verdict not in (Verdict.REPEAT, Verdict.FORKED):
            return Verdict.BEHIND
        return verdict


class Inbox:
    """The rows of one subscriber and topic that a chunk touches, locked until it commits."""

    def __init__(
        self, subscriber: str, topic: str, rows: dict[str, Seen], *, from_beginning: bool
    ) -> None:
        self._subscriber = subscriber
        self._topic = topic
        self._rows = rows
        self._from_beginning = from_beginning
        self._missing_before = {subject: set(seen.missing) for subject, seen in rows.items()}

    @classmethod
    async def lock(
        cls,
        connection: AsyncConnection,
        subscriber: str,
        topic: str,
        subjects: Iterable[str],
        *,
        from_beginning: bool,
    ) -> "Inbox":
        """Lock the rows of these subjects, in key order, made first where missing; load them.

        In three statements: what is missing and what is parked is read when the locks are had,
        for a statement sees nothing of what was committed while it waited.
        """
        wanted = sorted(set(subjects))
        rows: dict[str, Seen] = {}
        if wanted:
            mine = {"of_subscriber": subscriber, "of_topic": topic, "subjects": wanted}
            await connection.execute(_MAKE, mine)
            for subject, last, greatest_id in await connection.execute(_LOCK, mine):
                rows[subject] = Seen(last, greatest_id)
            for subject, sequence in await connection.execute(_LOAD, mine):
                if sequence is None:
                    rows[subject].parked = True
                else:
                    rows[subject].missing.add(sequence)
        return cls(subscriber, topic, rows, from_beginning=from_beginning)

    def judge(self, label: Label) -> Verdict:
        """Say what an event is, and count it."""
        return self._rows[label.subject].judge(
            label.sequence, label.event_id, from_beginning=self._from_beginning
        )

    def block(self, subject: str) -> None:
        """Let what comes later of this subject wait behind what was just parked."""
        self._rows[subject].parked = True

    async def flush(self, connection: AsyncConnection, now: Callable[[], datetime]) -> None:
        """Write what was seen: one statement, and one more where holes opened or closed."""
        if not self._rows:
            return
        await connection.execute(
            _WRITE,
            {
                "of_subscriber": self._subscriber,
                "of_topic": self._topic,
                "subjects": list(self._rows),
                "lasts": [seen.last for seen in self._rows.values()],
                "ids": [seen.greatest_id for seen in self._rows.values()],
            },
        )
        await self._flush_missing(connection, now())

    async def _flush_missing(self, connection: AsyncConnection, noticed_at: datetime) -> None:
        opened: list[dict[str, Any]] = []
        closed: list[tuple[str, int]] = []
        for subject, seen in self._rows.items():
            before = self._missing_before[subject]
            opened += [
                {
                    "subscriber": self._subscriber,
                    "topic": self._topic,
                    "subject": subject,
                    "sequence": number,
                    "noticed_at": noticed_at,
                }
                for number in sorted(seen.missing - before)
            ]
            closed += [(subject, number) for number in before - seen.missing]
        await insert_rows(connection, inbox_missing, opened)
        if closed:
            await connection.execute(
                delete(inbox_missing).where(
                    inbox_missing.c.subscriber == self._subscriber,
                    inbox_missing.c.topic == self._topic,
                    tuple_(inbox_missing.c.subject, inbox_missing.c.sequence).in_(closed),
                )
            )


def subjects_of(labels: Iterable[Label | None]) -> Sequence[str]:
    """Return the subjects that labels name, each once."""
    return list(dict.fromkeys(label.subject for label in labels if label is not None))


_subscriber = bindparam("of_subscriber", type_=Text)
_topic = bindparam("of_topic", type_=Text)
_subjects = bindparam("subjects", type_=ARRAY(Text))

_MAKE: Final = (
    insert(inbox)
    .from_select(
        ["subscriber", "topic", "subject", "last_sequence", "greatest_event_id"],
        select(
            _subscriber, _topic, func.unnest(_subjects), literal(0), literal(_NO_ID, type_=Uuid)
        ),
    )
    .on_conflict_do_nothing()
)
_LOCK: Final = (
    select(inbox.c.subject, inbox.c.last_sequence, inbox.c.greatest_event_id)
    .where(
        inbox.c.subscriber == _subscriber,
        inbox.c.topic == _topic,
        inbox.c.subject == func.any(_subjects),
    )
    .order_by(inbox.c.subject)
    .with_for_update()
)
_LOAD: Final = union_all(
    select(inbox_missing.c.subject, inbox_missing.c.sequence).where(
        inbox_missing.c.subscriber == _subscriber,
        inbox_missing.c.topic == _topic,
        inbox_missing.c.subject == func.any(_subjects),
    ),
    # Without a number: events of this subject are parked.
    select(parked.c.subject, cast(null(), BigInteger))
    .where(
        parked.c.subscriber == _subscriber,
        parked.c.topic == _topic,
        parked.c.subject == func.any(_subjects),
    )
    .distinct(),
)
_seen = (
    func.unnest(
        _subjects, bindparam("lasts", type_=ARRAY(BigInteger)), bindparam("ids", type_=ARRAY(Uuid))
    )
    .table_valued("subject", "last", "id", name="seen")
    .render_derived()
)
_WRITE: Final = (
    update(inbox)
    .where(
        inbox.c.subscriber == _subscriber,
        inbox.c.topic == _topic,
        inbox.c.subject == _seen.c.subject,
    )
    .values(last_sequence=_seen.c.last, greatest_event_id=_seen.c.id)
)
