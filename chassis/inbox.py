"""What a subscriber has seen of each aggregate: it drops repeats and notices what is missing.

One row an aggregate, so it grows with them and never with events.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.records import Label
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
    """What one subscriber has seen of one subject; ``last`` is None before the first event."""

    last: int | None = None
    greatest_id: UUID = _NO_ID
    missing: set[int] = field(default_factory=set)
    parked: bool = False

    def judge(self, sequence: int, event_id: UUID, *, from_beginning: bool) -> Verdict:
        """Say what the event is, and count it as seen.

        Order of the rules: a hole that is filled, what was there before, what waits for its
        turn, what is new.
        """
        expected = self._expected(sequence, from_beginning)
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
        self.last = max(self.last or 0, sequence)
        self.greatest_id = max(self.greatest_id, event_id)
        if self.parked and verdict not in (Verdict.REPEAT, Verdict.FORKED):
            return Verdict.BEHIND
        return verdict

    def _expected(self, sequence: int, from_beginning: bool) -> int:  # noqa: FBT001
        if self.last is not None:
            return self.last + 1
        return 1 if from_beginning else sequence


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
        self._judged: dict[str, None] = {}

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
        """Lock and load the rows of these subjects, in key order, in two statements."""
        wanted = sorted(set(subjects))
        rows = {subject: Seen() for subject in wanted}
        mine = (inbox.c.subscriber == subscriber) & (inbox.c.topic == topic)
        waiting = exists().where(
            parked.c.subscriber == inbox.c.subscriber,
            parked.c.topic == inbox.c.topic,
            parked.c.subject == inbox.c.subject,
        )
        known = await connection.execute(
            select(inbox, waiting.label("parked"))
            .where(mine, inbox.c.subject == func.any(wanted))
            .order_by(inbox.c.subject)
            .with_for_update(of=inbox)
        )
        for row in known:
            rows[row.subject] = Seen(row.last_sequence, row.greatest_event_id, parked=row.parked)
        holes = await connection.execute(
            select(inbox_missing.c.subject, inbox_missing.c.sequence).where(
                inbox_missing.c.subscriber == subscriber,
                inbox_missing.c.topic == topic,
                inbox_missing.c.subject == func.any(wanted),
            )
        )
        for subject, sequence in holes:
            rows[subject].missing.add(sequence)
        return cls(subscriber, topic, rows, from_beginning=from_beginning)

    def judge(self, label: Label) -> Verdict:
        """Say what an event is, and count it."""
        self._judged[label.subject] = None
        return self._rows[label.subject].judge(
            label.sequence, label.event_id, from_beginning=self._from_beginning
        )

    def block(self, subject: str) -> None:
        """Let what comes later of this subject wait behind what was just parked."""
        self._rows[subject].parked = True

    async def flush(self, connection: AsyncConnection, now: Callable[[], datetime]) -> None:
        """Write what was seen: one statement, and one more where holes opened or closed."""
        if not self._judged:
            return
        written = insert(inbox)
        await connection.execute(
            written.on_conflict_do_update(
                index_elements=[inbox.c.subscriber, inbox.c.topic, inbox.c.subject],
                set_={
                    "last_sequence": written.excluded.last_sequence,
                    "greatest_event_id": written.excluded.greatest_event_id,
                },
            ),
            [
                self._key(subject)
                | {
                    "last_sequence": self._rows[subject].last,
                    "greatest_event_id": self._rows[subject].greatest_id,
                }
                for subject in self._judged
            ],
        )
        await self._flush_missing(connection, now())

    async def _flush_missing(self, connection: AsyncConnection, noticed_at: datetime) -> None:
        opened: list[dict[str, Any]] = []
        closed: list[tuple[str, int]] = []
        for subject in self._judged:
            before, after = self._missing_before[subject], self._rows[subject].missing
            opened += [
                self._key(subject) | {"sequence": number, "noticed_at": noticed_at}
                for number in sorted(after - before)
            ]
            closed += [(subject, number) for number in before - after]
        if opened:
            await connection.execute(insert(inbox_missing), opened)
        if closed:
            await connection.execute(
                delete(inbox_missing).where(
                    inbox_missing.c.subscriber == self._subscriber,
                    inbox_missing.c.topic == self._topic,
                    tuple_(inbox_missing.c.subject, inbox_missing.c.sequence).in_(closed),
                )
            )

    def _key(self, subject: str) -> dict[str, Any]:
        return {"subscriber": self._subscriber, "topic": self._topic, "subject": subject}


def subjects_of(labels: Iterable[Label | None]) -> Sequence[str]:
    """Return the subjects that labels name, each once."""
    return list(dict.fromkeys(label.subject for label in labels if label is not None))
