"""Parked events of facts in several versions: released, applied or discarded, each fact once."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from chassis.consuming.dead_letters import ParkReason
from chassis.operations.dead_letter_rows import OneParkedEvent
from chassis.operations.dry_run import dry_run
from contracts.envelope import EncodedEvent
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import (
    UserSignedUpV2,
    in_both_versions,
    rows,
    schema,
    signed_up,
)

from .parking import NAME, Shop

Models = Sequence[type[UserSignedUpV1]]

V1: Models = (UserSignedUpV1,)
V2: Models = (UserSignedUpV2,)
BOTH: Models = (UserSignedUpV1, UserSignedUpV2)


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with schema(database) as engine:
        yield Shop(database, engine)


async def parked_reasons(shop: Shop) -> list[tuple[int, str]]:
    """Return sequence and reason of each parked event, in their order."""
    query = "SELECT sequence, reason FROM parked ORDER BY sequence"
    return [tuple(row) for row in await rows(shop.service.database, query)]


async def kept(shop: Shop) -> list[list[int] | None]:
    """Return what is kept of each subject's handled facts."""
    query = "SELECT handled_sequences FROM inbox"
    return [row[0] for row in await rows(shop.service.database, query)]


async def park_a_fact(shop: Shop, subject: UUID) -> None:
    """Park both versions of a fact: the first fails, and the other is behind it."""
    shop.faults.on = {1}
    await shop.comes(*in_both_versions(subject, 1))
    shop.faults.repair()
    assert await parked_reasons(shop) == [(1, "failed"), (2, "behind")]


class TestReleasing:
    @pytest.mark.parametrize(("models", "handled"), [(V1, [1]), (V2, [2]), (BOTH, [2])])
    async def test_both_versions_handles_the_one_that_the_subscriber_takes_now(
        self, shop: Shop, models: Models, handled: list[int]
    ) -> None:
        ada = uuid4()
        await park_a_fact(shop, ada)
        shop.change_subscriber(*models)

        done = await shop.release_subject(ada)

        assert (done.released, done.left, done.stopped_at) == (2, 0, None)
        assert await shop.handled() == handled
        assert await kept(shop) == [None]

    async def test_the_versions_before_and_after_the_move_handles_the_fact_once(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        await park_a_fact(shop, ada)
        ids = await shop.ids()

        await shop.release_one(ids[0])
        assert await kept(shop) == [[1]]
        shop.change_subscriber(*V2)
        await shop.release_one(ids[1])

        assert await shop.handled() == [1]
        assert await shop.ids() == {}
        assert await kept(shop) == [None]

    async def test_is_counted_by_what_became_of_each(self, shop: Shop) -> None:
        def counted(outcome: str) -> float:
            labels = {"subscriber": NAME, "outcome": outcome}
            return REGISTRY.get_sample_value("consumer_events_total", labels) or 0

        ada = uuid4()
        await park_a_fact(shop, ada)
        before = counted("handled"), counted("other-version")

        await shop.release_subject(ada)

        assert (counted("handled"), counted("other-version")) == (before[0] + 1, before[1] + 1)

    async def test_a_version_behind_one_that_was_discarded_stays_parked(self, shop: Shop) -> None:
        ada = uuid4()
        await park_a_fact(shop, ada)
        await shop.discard((await shop.ids())[0])

        done = await shop.release_subject(ada)

        assert done.stopped_at is not None
        assert done.stopped_at.reason is ParkReason.VERSION_MISSED
        assert await shop.handled() == []

    async def test_one_that_would_be_missed_leaves_it_until_the_subscriber_is_moved_again(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)
        shop.change_subscriber(*V2)
        await shop.comes(first)
        shop.change_subscriber(*V1)
        await shop.comes(second)

        assert (await shop.release_subject(ada)).left == 1
        shop.change_subscriber(*V2)
        assert (await shop.release_subject(ada)).released == 1

        assert await shop.handled() == [2]

    async def test_passes_over_a_version_that_has_no_handler_any_more(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, 1, 2)
        shop.change_subscriber(*V2)

        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (2, 0)
        assert await shop.handled() == []


class TestApplying:
    async def test_a_later_fact_first_does_not_handle_it_again_in_its_other_version(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        shop.faults.on = {1}
        await shop.comes(*in_both_versions(ada, 1), *in_both_versions(ada, 3))
        shop.faults.repair()

        await shop.apply((await shop.ids())[2])
        await shop.release_one((await shop.ids())[0])
        shop.change_subscriber(*V2)
        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (2, 0)
        assert await shop.handled() == [3, 1]
        assert await kept(shop) == [None]

    async def test_a_fork_handles_it_although_its_number_was_handled(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(in_both_versions(ada, 1)[0])
        forked, behind = in_both_versions(ada, 1)
        await shop.comes(forked, behind)
        assert await parked_reasons(shop) == [(1, "forked"), (2, "behind")]

        await shop.apply((await shop.ids())[1])
        await shop.release_subject(ada)

        assert await shop.handled() == [1, 1]
        assert await shop.ids() == {}


class TestADryRun:
    async def test_of_a_version_that_would_be_passed_over_changes_nothing(self, shop: Shop) -> None:
        ada = uuid4()
        await park_a_fact(shop, ada)
        ids = await shop.ids()

        body = await dry_run(shop.runtime, OneParkedEvent(parked_id=ids[1]))

        assert (body.stays_parked, body.changes) == (None, [])
        assert await shop.ids() == ids


Fact = tuple[EncodedEvent, ...]


class Course:
    """What happens to one subject: chunks, and between them acts and changes of the subscriber."""

    def __init__(self, shop: Shop, subject: UUID, facts: Sequence[Fact]) -> None:
        self.shop = shop
        self.subject = subject
        self.events = [event for fact in facts for event in fact]
        self.fact_of = dict(
            enumerate((number for number, fact in enumerate(facts) for _ in fact), start=1)
        )

    def fail(self, facts: set[int]) -> None:
        """Have these facts fail, in any version, until the handler is repaired."""
        self.shop.faults.on = {each for each, fact in self.fact_of.items() if fact in facts}

    async def handled(self) -> Counter[int]:
        """Return how often each fact was handled."""
        found = await self.shop.service.handled(NAME)
        return Counter(
            self.fact_of[sequence] for subject, sequence in found if subject == str(self.subject)
        )

    async def parked(self) -> list[Any]:
        query = "SELECT * FROM parked WHERE subject = $1 ORDER BY sequence"
        return await rows(self.shop.service.database, query, str(self.subject))

    async def kept(self) -> list[int] | None:
        query = "SELECT handled_sequences FROM inbox WHERE subject = $1"
        [row] = await rows(self.shop.service.database, query, str(self.subject))
        kept: list[int] | None = row["handled_sequences"]
        return kept

    async def act(self, act: str, chance: int) -> None:
        match act:
            case "release":
                await self.shop.release_subject(self.subject)
            case "release-one":
                if parked := await self.parked():
                    await self.shop.release_one(parked[0]["id"])
            case "apply":
                if parked := await self.parked():
                    await self.shop.apply(parked[chance % len(parked)]["id"])
            case "repair":
                self.shop.faults.repair()


def facts_of(subject: UUID, kinds: Sequence[str]) -> list[Fact]:
    """Return facts that are published as V1, in both versions, or as V2."""
    facts: list[Fact] = []
    sequence = 1
    for kind in kinds:
        match kind:
            case "v1":
                facts.append((signed_up(subject, sequence),))
            case "v2":
                facts.append((signed_up(subject, sequence, model=UserSignedUpV2),))
            case _:
                facts.append(in_both_versions(subject, sequence))
        sequence += len(facts[-1])
    return facts


ACTS = st.sampled_from(["", "", "release", "release-one", "repair"])

whatever_happens = settings(
    deadline=None,
    max_examples=40,
    # An example takes some tenths of a second, and is small from the start.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.timeout(600)
class TestWhateverHappens:
    @whatever_happens
    @given(
        before=st.integers(0, 2),
        both=st.integers(1, 4),
        after=st.integers(0, 2),
        data=st.data(),
    )
    async def test_while_the_reader_is_moved_each_fact_is_handled_once(
        self, shop: Shop, before: int, both: int, after: int, data: st.DataObject
    ) -> None:
        # Of facts that are published in V1 only, a reader without a handler for it can take none.
        readers = [V1, BOTH] if before else data.draw(st.sampled_from([[V1, V2], [V1, BOTH, V2]]))
        subject = uuid4()
        kinds = [*["v1"] * before, *["both"] * both, *["v2"] * after]
        facts = facts_of(subject, kinds)
        course = Course(shop, subject, facts)
        published_in_v1 = before + 2 * both
        # The reader is moved before it comes to what is published in V2 only.
        moves = sorted(data.draw(st.integers(0, published_in_v1)) for _ in range(len(readers) - 1))
        course.fail(data.draw(st.sets(st.integers(0, len(facts) - 1), max_size=2)))
        shop.change_subscriber(*readers[0])

        done, moved = 0, 0
        while done < len(course.events):
            while moved < len(moves) and moves[moved] <= done:
                moved += 1
                shop.change_subscriber(*readers[moved])
            border = moves[moved] if moved < len(moves) else len(course.events)
            size = data.draw(st.integers(1, border - done))
            repeats = data.draw(st.lists(st.integers(0, done + size - 1), max_size=2))
            chunk = [
                *course.events[done : done + size],
                *(course.events[each] for each in repeats),
            ]
            await shop.comes(*chunk)
            done += size
            await course.act(data.draw(ACTS), 0)
        for models in readers[moved + 1 :]:
            shop.change_subscriber(*models)
        shop.faults.repair()
        await course.act("release", 0)

        assert await course.parked() == []
        assert await course.handled() == Counter(range(len(facts)))
        assert await course.kept() is None

    @whatever_happens
    @given(
        number=st.integers(1, 4),
        readers=st.lists(st.sampled_from([V1, V2, BOTH]), min_size=1, max_size=5),
        data=st.data(),
    )
    async def test_no_fact_is_handled_twice_or_missed_in_silence(
        self, shop: Shop, number: int, readers: list[Models], data: st.DataObject
    ) -> None:
        """The reader is moved back too, events come late, and operators apply out of order."""
        subject = uuid4()
        facts = facts_of(subject, ["both"] * number)
        course = Course(shop, subject, facts)
        course.fail(data.draw(st.sets(st.integers(0, number - 1), max_size=2)))
        order = data.draw(st.permutations(course.events))

        chunks = data.draw(st.lists(st.integers(1, 4), min_size=len(order), max_size=len(order)))
        acts = ACTS | st.just("apply")
        done = 0
        for position, size in enumerate(chunks):
            if done >= len(order):
                break
            shop.change_subscriber(*readers[position % len(readers)])
            await shop.comes(*order[done : done + size])
            done += size
            await course.act(data.draw(acts), data.draw(st.integers(0, 3)))
        shop.faults.repair()
        await course.act("release", 0)

        handled = await course.handled()
        assert max(handled.values(), default=0) <= 1
        missed = {course.fact_of[row["sequence"]] for row in await course.parked()}
        assert missed | set(handled) == set(range(number))
        # Those behind the first keep the reason that they were parked for.
        first = (await course.parked())[:1]
        assert {row["reason"] for row in first} <= {"version-missed", "behind"}
