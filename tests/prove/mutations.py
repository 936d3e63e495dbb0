"""Every guard that a promise of ``docs/guarantees.md`` rests on, and how to take it away."""

from typing import Final

from tests.prove.mutation import Mutation

_CONSUME: Final = "tests/integration/chassis/test_consume.py::"
_SUBSCRIBERS: Final = "tests/integration/chassis/test_subscribers.py::"
_TRANSACTOR: Final = "tests/integration/chassis/test_transactor.py::"
_RELAY: Final = "tests/integration/chassis/test_relay.py::"
_AGENTS: Final = "tests/integration/chassis/test_agents.py::"

MUTATIONS: Final = (
    Mutation(
        name="refuse-by-progress",
        guard="A chunk that begins after what is done is refused and fetched again",
        file="chassis/consume.py",
        before="            if chunk.begin > min(places.values()):\n",
        after="            if False:\n",
        proven_by=(
            f"{_CONSUME}TestProgressDecides::test_a_chunk_after_a_hole_is_refused_and_fetched_again",
        ),
    ),
    Mutation(
        name="trim-by-progress",
        guard="What a chunk holds of records that are done already is left out",
        file="chassis/consume.py",
        before="[r for r in chunk.records if r.offset >= places[subscriber.name]]",
        after="list(chunk.records)",
        proven_by=(
            f"{_CONSUME}TestProgressDecides::test_one_that_keeps_records_is_given_none_again",
        ),
    ),
    Mutation(
        name="fork-check",
        guard="A sequence used again by a newer event is another history, not a repeat",
        file="chassis/inbox.py",
        before="Verdict.FORKED if event_id > self.greatest_id else Verdict.REPEAT",
        after="Verdict.REPEAT",
        proven_by=(
            f"{_SUBSCRIBERS}TestWhatWasSeenBefore::test_one_of_a_forked_history_is_parked_and_what_follows_it_waits",
        ),
    ),
    Mutation(
        name="ask-after-commit",
        guard="Where a COMMIT got no answer, the database is asked what became of it",
        file="chassis/transactor.py",
        before="        if not await self._was_committed(mark):\n            raise lost\n",
        after="        raise lost\n",
        proven_by=(
            f"{_TRANSACTOR}TestAConnectionLost::test_as_commit_is_answered_it_is_not_done_twice",
        ),
    ),
    Mutation(
        name="park-behind",
        guard="Behind a parked event the later ones of its aggregate are parked too",
        file="chassis/inbox.py",
        before="if self.parked and verdict not in (Verdict.REPEAT, Verdict.FORKED):",
        after="if False:",
        proven_by=(
            f"{_CONSUME}TestAnEventThatFails::test_stops_the_later_ones_of_its_subject_only",
        ),
    ),
)
