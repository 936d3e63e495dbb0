"""What a subscriber has seen of each aggregate: it drops repeats and notices gaps.

The table has one row an aggregate, so it grows with aggregates and never with events.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Text,
    bindparam,
    cast,
    delete,
    func,
    null,
    select,
    text,
    tuple_,
    union_all,
)

from chassis.consuming.dead_letters import ParkReason
from chassis.consuming.records import EventIdentity
from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection
from chassis.persistence.tables import inbox_missing, parked

Range = tuple[int, int]
"""The first and the last of some sequences."""

Newest = tuple[int, UUID]
"""The highest sequence and the greatest event id of a subject."""

_NO_ID: Final = UUID(int=0)
_NOTHING: Final = (0, _NO_ID)


class Verdict(StrEnum):
    """What an event is to a subscriber, given what it has seen of the subject."""

    NEXT = "next"
    AFTER_GAP = "after-gap"
    LATE = "late"
    REPEAT = "repeat"
    FORKED = "forked"
    BEHIND = "behind"


class Gaps:
    """The sequences that are missing of one subject, as ranges: a gap of billions is one."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges = sorted(ranges)

    def __iter__(self) -> Iterator[Range]:
        """Yield the first and the last sequence of each range, in their order."""
        return iter(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __contains__(self, sequence: int) -> bool:
        return self._index_of(sequence) is not None

    def open(self, first: int, last: int) -> None:
        """Add a range that lies behind all others."""
        self._ranges.append((first, last))

    def fill(self, sequence: int) -> bool:
        """Take a sequence out; false where it is not missing."""
        index = self._index_of(sequence)
        if index is None:
            return False
        first, last = self._ranges[index]
        left = [(first, sequence - 1), (sequence + 1, last)]
        self._ranges[index : index + 1] = [each for each in left if each[0] <= each[1]]
        return True

    def _index_of(self, sequence: int) -> int | None:
        index = bisect_right(self._ranges, sequence, key=itemgetter(0)) - 1
        return None if index < 0 or sequence > self._ranges[index][1] else index


@dataclass(slots=True)
class Seen:
    """What one subscriber has seen of one subject.

    :ivar last: the highest sequence; 0 before the first event
    :ivar parked: whether events of it are parked
    :ivar handled: the sequences of handled events of whose facts another version is still to come
    :ivar parked_versions: the sequences of parked events that are still to come as well
    :ivar started_at: the first sequence that a subscriber saw that started late; 0: not known
    """

    last: int = 0
    greatest_id: UUID = _NO_ID
    gaps: Gaps = field(default_factory=Gaps)
    parked: bool = False
    handled: set[int] = field(default_factory=set)
    parked_versions: Collection[int] = ()
    started_at: int = 0

    def judge(self, sequence: int, event_id: UUID, *, from_beginning: bool) -> Verdict:
        """Return what the event is, and count it as seen.

        Order of the rules: an event that fills a gap, one that was seen before, one behind a
        parked event, a new one.
        """
        # A subscriber that starts late takes the first event that it sees as the next.
        if self.last or from_beginning:
            expected = self.last + 1
        else:
            expected = self.started_at = sequence
        if self.gaps and self.gaps.fill(sequence):
            verdict = Verdict.LATE
        elif sequence < expected:
            # UUIDv7 grows with time. A sequence that is used again by a newer event is a forked
            # history: the producer was restored from an older backup.
            verdict = Verdict.FORKED if event_id > self.greatest_id else Verdict.REPEAT
        elif sequence > expected:
            self.gaps.open(expected, sequence - 1)
            verdict = Verdict.AFTER_GAP
        else:
            verdict = Verdict.NEXT
        self.last = max(self.last, sequence)
        self.greatest_id = max(self.greatest_id, event_id)
        if self.parked and verdict not in (Verdict.REPEAT, Verdict.FORKED):
            return Verdict.BEHIND
        return verdict

    def is_to_come(self, sequence: int) -> bool:
        """Tell whether an event was not delivered yet, or is parked."""
        return sequence > self.last or sequence in self.gaps or sequence in self.parked_versions

    def handle(self, sequence: int, others: Collection[int]) -> None:
        """Note that a fact is handled, as far as one of its other versions is still to come."""
        self.handled.difference_update(others, [sequence])
        if any(map(self.is_to_come, others)):
            self.handled.add(sequence)


class Inbox:
    """The rows of one subscriber and topic that a chunk touches, locked until it commits."""

    def __init__(
        self, subscriber: str, topic: str, rows: dict[str, Seen], *, from_beginning: bool
    ) -> None:
        self._subscriber = subscriber
        self._topic = topic
        self._rows = rows
        self._from_beginning = from_beginning
        self._gaps_before = {
            subject: frozenset(seen.gaps) for subject, seen in rows.items() if seen.gaps
        }
        self._handled_before: dict[str, frozenset[int]] = {}

    @classmethod
    async def lock(
        cls,
        connection: Connection,
        subscriber: str,
        topic: str,
        identities: Iterable[EventIdentity],
        *,
        from_beginning: bool,
    ) -> "Inbox":
        """Count these events as seen, and return what was seen before, to judge them by.

        The rows of their subjects are locked in key order, and inserted where missing. Gaps and
        parked events are read in a second statement, once the locks are held: a statement does
        not see what was committed while it waited. A subject without a row has neither.
        """
        newest: dict[str, Newest] = {}
        for identity in identities:
            last, id_ = newest.get(identity.subject, _NOTHING)
            newest[identity.subject] = max(last, identity.sequence), max(id_, identity.event_id)
        rows: dict[str, Seen] = {}
        if newest:
            before = await advance(connection, subscriber, topic, newest)
            rows = {subject: seen or Seen() for subject, seen in before.items()}
            met_before = [subject for subject, seen in before.items() if seen is not None]
            if met_before:
                mine = {"of_subscriber": subscriber, "of_topic": topic, "subjects": met_before}
                gaps: dict[str, list[Range]] = defaultdict(list)
                for subject, first, last in await connection.execute(_LOAD, mine):
                    if first is None:
                        rows[subject].parked = True
                    else:
                        gaps[subject].append((first, last))
                for subject, ranges in gaps.items():
                    rows[subject].gaps = Gaps(ranges)
        return cls(subscriber, topic, rows, from_beginning=from_beginning)

    def judge(self, identity: EventIdentity) -> Verdict:
        """Return what an event is, and count it."""
        return self._rows[identity.subject].judge(
            identity.sequence, identity.event_id, from_beginning=self._from_beginning
        )

    def seen_of(self, subject: str) -> Seen:
        """Return what was seen of a subject, to note in it which facts are handled."""
        seen = self._rows[subject]
        self._handled_before.setdefault(subject, frozenset(seen.handled))
        return seen

    async def seen_with_parked(
        self, connection: Connection, subject: str, sequences: Collection[int]
    ) -> Seen:
        """Do as ``seen_of``, and find out which of these events are parked."""
        seen = self.seen_of(subject)
        found = await connection.scalars(
            select(parked.c.sequence).where(
                parked.c.subscriber == self._subscriber,
                parked.c.topic == self._topic,
                parked.c.subject == subject,
                parked.c.sequence.in_(sequences),
                # A fork has the sequence of another event.
                parked.c.reason != ParkReason.FORKED,
            )
        )
        seen.parked_versions = frozenset(found)
        return seen

    def block(self, subject: str) -> None:
        """Have later events of this subject park behind the one that was just parked."""
        self._rows[subject].parked = True

    async def flush(self, connection: Connection, now: Callable[[], datetime]) -> None:
        """Write which gaps opened and closed, and which facts are handled; the rest is written."""
        await self._flush_handled(connection)
        opened: list[dict[str, Any]] = []
        closed: list[tuple[str, int]] = []
        for subject, seen in self._rows.items():
            before = self._gaps_before.get(subject, frozenset())
            if not before and not seen.gaps:
                continue
            after = frozenset(seen.gaps)
            opened += [
                {
                    "subscriber": self._subscriber,
                    "topic": self._topic,
                    "subject": subject,
                    "sequence": first,
                    "last_sequence": last,
                    "noticed_at": now(),
                }
                for first, last in sorted(after - before)
            ]
            closed += [(subject, first) for first, _ in before - after]
        # Before the new ones: what is left of a range may begin where the range did.
        if closed:
            await connection.execute(
                delete(inbox_missing).where(
                    inbox_missing.c.subscriber == self._subscriber,
                    inbox_missing.c.topic == self._topic,
                    tuple_(inbox_missing.c.subject, inbox_missing.c.sequence).in_(closed),
                )
            )
        await insert_rows(connection, inbox_missing, opened)

    async def _flush_handled(self, connection: Connection) -> None:
        changed = {
            subject: self._rows[subject].handled
            for subject, before in self._handled_before.items()
            if self._rows[subject].handled != before
        }
        if changed:
            await connection.execute(
                _WRITE_HANDLED,
                {
                    "of_subscriber": self._subscriber,
                    "of_topic": self._topic,
                    "subjects": list(changed),
                    "handled": [",".join(map(str, sorted(each))) for each in changed.values()],
                },
            )


async def advance(
    connection: Connection, subscriber: str, topic: str, newest: Mapping[str, Newest]
) -> dict[str, Seen | None]:
    """Lock the rows of subjects, move them up to these, and return what they were before.

    One statement. None in the result: the subject had no row.
    """
    subjects = sorted(newest)
    counted = await connection.execute(
        _COUNT_IN,
        {
            "of_subscriber": subscriber,
            "of_topic": topic,
            "subjects": subjects,
            "lasts": [newest[subject][0] for subject in subjects],
            "ids": [newest[subject][1] for subject in subjects],
        },
    )
    return {
        subject: None if last is None else Seen(last, id_, handled=set(handled or ()))
        for subject, last, id_, handled in counted
    }


async def lock_subject(connection: Connection, subscriber: str, topic: str, subject: str) -> None:
    """Have live events of a subject wait until this transaction ends."""
    await advance(connection, subscriber, topic, {subject: _NOTHING})


# `old` is the row before this statement, which is what events are judged by (PostgreSQL 18). The
# order of the arrays is the order of the locks.
_COUNT_IN: Final = text("""
    INSERT INTO inbox AS seen (subscriber, topic, subject, last_sequence, greatest_event_id)
    SELECT :of_subscriber, :of_topic, subject, last, id
    FROM unnest(CAST(:subjects AS text[]), CAST(:lasts AS bigint[]), CAST(:ids AS uuid[]))
        AS newest (subject, last, id)
    ON CONFLICT (subscriber, topic, subject) DO UPDATE SET
        last_sequence = greatest(seen.last_sequence, excluded.last_sequence),
        greatest_event_id = greatest(seen.greatest_event_id, excluded.greatest_event_id)
    RETURNING seen.subject, old.last_sequence, old.greatest_event_id, old.handled_sequences
""")
# A text for each subject, since arrays in an array all have one length.
_WRITE_HANDLED: Final = text("""
    UPDATE inbox SET handled_sequences = string_to_array(nullif(handled, ''), ',')::bigint[]
    FROM unnest(CAST(:subjects AS text[]), CAST(:handled AS text[])) AS given (of_subject, handled)
    WHERE subscriber = :of_subscriber AND topic = :of_topic AND subject = of_subject
""")
_subscriber = bindparam("of_subscriber", type_=Text)
_topic = bindparam("of_topic", type_=Text)
_subjects = bindparam("subjects", type_=ARRAY(Text))
_LOAD: Final = union_all(
    select(inbox_missing.c.subject, inbox_missing.c.sequence, inbox_missing.c.last_sequence).where(
        inbox_missing.c.subscriber == _subscriber,
        inbox_missing.c.topic == _topic,
        inbox_missing.c.subject == func.any(_subjects),
    ),
    # A row without a sequence: events of this subject are parked.
    select(parked.c.subject, cast(null(), BigInteger), cast(null(), BigInteger))
    .where(
        parked.c.subscriber == _subscriber,
        parked.c.topic == _topic,
        parked.c.subject == func.any(_subjects),
    )
    .distinct(),
)
