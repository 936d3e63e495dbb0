"""Parked events are released: in order, once, whatever happens meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from chassis.backoff import Backoff
from chassis.consuming import retry_policy
from chassis.consuming.dead_letters import ParkReason, SeenAlready
from chassis.consuming.subscribers import RecordSubscriber
from chassis.operations import context as context_module
from chassis.operations import slices as slices_module
from chassis.operations.dead_letter_rows import NoSuchParkedEvent, NoSuchSubscriber
from chassis.operations.release import Forked, NotFirst
from chassis.operations.slices import ReleaseBody
from chassis.persistence.transactor import StaleAggregate
from chassis.testing import eventually
from chassis.web.problems import TemporarilyUnavailable
from contracts.envelope import decode
from tests.integration.chassis.path import (
    PathWork,
    count,
    is_waiting_for_a_lock,
    rows,
    schema,
    signed_up,
)
from tests.integration.chassis.service import TOPIC, NameIsTaken, records_of

from .operating import acts_of
from .parking import NAME, Faults, Shop, without_label

RELEASED = "operations.parked-event-released.v1"
APPLIED = "operations.parked-event-applied.v1"
PARKED_AGAIN = "operations.parked-event-parked-again.v1"


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with schema(database) as engine:
        yield Shop(database, engine)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(first_s=0.02, longest_s=0.02))


async def edit(shop: Shop, id_: UUID, subject: UUID, sequence: int) -> None:
    """Edit an event into one of a known version."""
    payload = decode(signed_up(subject, sequence).payload)
    await shop.edit(id_, payload.model_dump(mode="json"))


class TestAWholeSubject:
    async def test_is_handled_in_order_and_recorded(self, shop: Shop) -> None:
        ada, bob = uuid4(), uuid4()
        await shop.parks(ada, 1, 2, 3)
        await shop.parks(bob, 1)
        ids = await shop.ids()

        done = await shop.release_subject(ada)

        assert (done.released, done.left, done.stopped_at) == (3, 0, None)
        assert await shop.handled() == [1, 2, 3]
        assert await shop.ids() == {3: ids[3]}
        assert sorted(await acts_of(shop.service.database)) == sorted(
            (RELEASED, str(ids[offset]), 1) for offset in range(3)
        )
        assert shop.woken == 1

    async def test_in_slices_is_handled_in_order_too(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slices_module, "SLICE", 4)
        ada = uuid4()
        await shop.parks(ada, *range(1, 11))

        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (10, 0)
        assert await shop.handled() == list(range(1, 11))

    async def test_that_takes_too_long_is_continued_by_the_next_release(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slices_module, "SLICE", 1)
        monkeypatch.setattr(slices_module, "_RELEASE_FOR_S", 0.001)
        ada = uuid4()
        await shop.parks(ada, *range(1, 6))

        done = await shop.release_subject(ada)

        assert (done.released, done.left, done.stopped_at) == (1, 4, None)

    async def test_is_handled_live_again_afterwards(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, 1, 2)
        await shop.release_subject(ada)

        await shop.comes(signed_up(ada, 3))

        assert await shop.handled() == [1, 2, 3]
        assert await shop.ids() == {}

    async def test_of_which_nothing_is_parked_is_no_error(self, shop: Shop) -> None:
        done = await shop.release_subject(uuid4())

        assert (done.released, done.left, done.stopped_at) == (0, 0, None)
        assert await count(shop.service.database, "inbox") == 0

    async def test_of_an_unknown_subscriber_is_refused(self, shop: Shop) -> None:
        with pytest.raises(NoSuchSubscriber):
            await shop.release_subject(uuid4(), "test.gone")


class TestOne:
    async def test_that_is_first_is_handled_and_what_is_behind_it_stays(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, 1, 2)
        ids = await shop.ids()

        done = await shop.release_one(ids[0])

        assert (done.released, done.left, done.stopped_at) == (1, 1, None)
        assert await shop.handled() == [1]
        assert await shop.ids() == {1: ids[1]}

    async def test_that_is_not_first_is_refused_and_the_first_named(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1, 2)
        ids = await shop.ids()

        with pytest.raises(NotFirst, match=str(ids[0])):
            await shop.release_one(ids[1])

        assert await shop.ids() == ids
        assert await acts_of(shop.service.database) == []

    async def test_that_comes_late_is_before_those_with_greater_numbers(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, 1, 3, 2, failing=3)
        ids = await shop.ids()

        with pytest.raises(NotFirst, match=str(ids[2])):
            await shop.release_one(ids[1])
        done = await shop.release_subject(ada)

        assert done.released == 2
        assert await shop.handled() == [1, 2, 3]

    async def test_that_is_not_there_is_not_found(self, shop: Shop) -> None:
        with pytest.raises(NoSuchParkedEvent):
            await shop.release_one(uuid4())

    async def test_of_a_subscriber_that_is_gone_is_refused(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1)
        await rows(shop.service.database, "UPDATE parked SET subscriber = 'test.gone'")
        (id_,) = (await shop.ids()).values()

        with pytest.raises(NoSuchSubscriber):
            await shop.release_one(id_)


class TestOneThatFailsAgain:
    async def test_stays_with_its_new_error_and_those_behind_it_wait(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, 1, 2, 3, 4)
        ids = await shop.ids()
        before = await shop.row(ids[2])
        shop.faults.on, shop.faults.error = {3}, ValueError("odd")

        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (2, 2)
        assert done.stopped_at is not None
        assert (done.stopped_at.id, done.stopped_at.error_code) == (ids[2], "unexpected-error")
        assert await shop.handled() == [1, 2]
        after = await shop.row(ids[2])
        assert (after["reason"], after["error_message"]) == ("failed", "ValueError")
        assert after["tries"] == before["tries"] + 1
        assert after["first_tried_at"] == before["first_tried_at"]
        assert after["last_tried_at"] > before["last_tried_at"]
        assert await acts_of(shop.service.database) == [
            (RELEASED, str(ids[0]), 1),
            (RELEASED, str(ids[1]), 1),
            (PARKED_AGAIN, str(ids[2]), 1),
        ]

    async def test_is_counted_each_time(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1)
        (id_,) = (await shop.ids()).values()
        shop.faults.on = {1}

        for _ in range(2):
            done = await shop.release_one(id_)
            assert (done.released, done.left) == (0, 1)

        assert (await shop.row(id_))["tries"] == 3
        assert await acts_of(shop.service.database) == [
            (PARKED_AGAIN, str(id_), 1),
            (PARKED_AGAIN, str(id_), 2),
        ]

    async def test_for_no_fault_of_its_own_is_left_as_it_was(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1)
        (id_,) = (await shop.ids()).values()
        before = await shop.row(id_)
        shop.faults.on, shop.faults.error = {1}, StaleAggregate()

        with pytest.raises(TemporarilyUnavailable):
            await shop.release_one(id_)

        assert await shop.row(id_) == before
        assert await acts_of(shop.service.database) == []

    async def test_because_it_hangs_is_parked_again(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slices_module, "_SLICE_TIMEOUT_S", 0.5)

        async def hang(*_event: object) -> None:
            await asyncio.Event().wait()

        await shop.parks(uuid4(), 1)
        (id_,) = (await shop.ids()).values()
        with monkeypatch.context() as patched:
            patched.setattr(Faults, "__call__", hang)
            done = await shop.release_one(id_)

        assert done.stopped_at is not None
        assert (await shop.row(id_))["error_message"] == "TimeoutError"

    async def test_because_its_version_is_unknown_ends_the_release_and_keeps_what_was_done(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        odd = records_of(signed_up(ada, 2))[0]
        assert odd.value is not None
        odd = replace(odd, value=odd.value.replace(b'"username":"ada"', b'"username":7'))
        shop.faults.on = {1}
        await shop.comes(signed_up(ada, 1), odd, signed_up(ada, 3))
        shop.faults.repair()

        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (1, 2)
        assert done.stopped_at is not None
        assert done.stopped_at.reason is ParkReason.NOT_UNDERSTOOD
        assert await shop.handled() == [1]


async def released_by_three(shop: Shop, id_: UUID) -> int:
    """Let three release it at once; return how many releases that made in all.

    One that looks when it is done already finds none to release.
    """
    done = await asyncio.gather(*(shop.release_one(id_) for _ in range(3)), return_exceptions=True)
    late = [each for each in done if isinstance(each, NoSuchParkedEvent)]
    bodies = [each for each in done if isinstance(each, ReleaseBody)]
    assert len(late) + len(bodies) == len(done), done
    return sum(each.released for each in bodies)


class TestAtOnce:
    async def test_two_operators_handle_once(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, *range(1, 21))

        done = await asyncio.gather(*(shop.release_subject(ada) for _ in range(3)))

        assert sorted(each.released for each in done) == [0, 0, 20]
        assert await shop.handled() == list(range(1, 21))
        assert len(await acts_of(shop.service.database)) == 20

    async def test_two_operators_handle_one_event_once(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1)
        (id_,) = (await shop.ids()).values()

        released = await released_by_three(shop, id_)

        assert released == 1
        assert await shop.handled() == [1]

    async def test_bytes_without_a_subject_are_handled_once_too(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        await edit(shop, id_, ada, 1)

        released = await released_by_three(shop, id_)

        assert released == 1
        assert await shop.handled() == [1]

    async def test_a_live_event_waits_while_its_subject_is_released(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ada = uuid4()
        await shop.parks(ada, 1, 2)
        live: list[asyncio.Task[None]] = []

        async def let_one_come(*_event: object) -> None:
            if live:
                return
            live.append(asyncio.create_task(shop.comes(signed_up(ada, 3))))

            async def it_waits_or_is_done() -> bool:
                return live[0].done() or await is_waiting_for_a_lock(shop.service.database)

            await eventually(it_waits_or_is_done)

        monkeypatch.setattr(Faults, "__call__", let_one_come)

        await shop.release_subject(ada)
        await asyncio.gather(*live)

        assert await shop.handled() == [1, 2, 3]
        assert await shop.ids() == {}

    @pytest.mark.parametrize("act", ["released", "discarded"])
    async def test_an_event_that_comes_while_the_last_parked_one_is_handled_is_not_left_behind_it(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, act: str
    ) -> None:
        ada = uuid4()
        await shop.parks(ada, 1)
        (id_,) = (await shop.ids()).values()
        coming: list[asyncio.Task[None]] = []

        async def let_one_come(point: str) -> None:
            if point.endswith("before-commit"):
                coming.append(asyncio.create_task(shop.comes(signed_up(ada, 2))))
                await asyncio.wait(coming, timeout=0.3)

        monkeypatch.setattr(slices_module, "failpoint", let_one_come)
        monkeypatch.setattr(context_module, "failpoint", let_one_come)
        if act == "released":
            await shop.release_one(id_)
        else:
            await shop.discard(id_)
        await asyncio.gather(*coming)

        assert await shop.ids() == {}
        assert (await shop.handled())[-1] == 2

    @pytest.mark.parametrize("seed", range(12))
    async def test_live_events_of_the_subject_stay_in_order_and_none_is_left_behind(
        self, shop: Shop, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret
        monkeypatch.setattr(slices_module, "SLICE", chance.choice([1, 2, 5]))
        monkeypatch.setattr(slices_module, "_RELEASE_FOR_S", 60)
        ada = uuid4()
        await shop.parks(ada, 1, 2, 3)

        async def go_on_coming() -> None:
            following = 4
            for _ in range(15):
                some = range(following, following + chance.randint(1, 4))
                following = some.stop
                await shop.comes(*(signed_up(ada, each) for each in some))
                await asyncio.sleep(chance.uniform(0, 0.004))

        coming = asyncio.create_task(go_on_coming())
        await asyncio.sleep(chance.uniform(0, 0.05))
        done = await shop.release_subject(ada)
        await coming

        assert (done.left, done.stopped_at) == (0, None)
        assert await shop.ids() == {}
        handled = await shop.handled()
        assert handled == list(range(1, len(handled) + 1))
        assert len(handled) == await shop.service.next_offset(NAME)


class TestACrash:
    @pytest.mark.parametrize("point", ["release.before-commit", "release.after-commit"])
    async def test_at_any_moment_leaves_it_handled_once(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, point: str
    ) -> None:
        class Killed(BaseException):
            pass

        async def die_there(name: str) -> None:
            if name == point:
                raise Killed

        ada = uuid4()
        await shop.parks(ada, 1, 2)
        with monkeypatch.context() as patched:
            patched.setattr(slices_module, "failpoint", die_there)
            with pytest.raises(Killed):
                await shop.release_subject(ada)

        done = await shop.release_subject(ada)

        assert done.released == (2 if point == "release.before-commit" else 0)
        assert await shop.handled() == [1, 2]
        assert len(await acts_of(shop.service.database)) == 2

    async def test_of_the_connection_is_tried_again(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cut = ConnectionResetError("cut")

        async def cut_once(_name: str) -> None:
            nonlocal cut
            if cut is not None:
                error, cut = cut, None  # type: ignore[assignment]
                raise error

        ada = uuid4()
        await shop.parks(ada, 1)
        monkeypatch.setattr(slices_module, "failpoint", cut_once)

        done = await shop.release_subject(ada)

        assert done.released == 1
        assert await shop.handled() == [1]


class TestAForkedHistory:
    async def forks(self, shop: Shop) -> UUID:
        """Park number 2; then another number 2 comes, and 3 and 4 of the new history."""
        ada = uuid4()
        await shop.parks(ada, 1, 2, 3, failing=2)
        await shop.comes(signed_up(ada, 2), signed_up(ada, 4))
        assert [row[1] for row in await shop.service.parked(NAME)] == [
            "failed",
            "behind",
            "forked",
            "behind",
        ]
        return ada

    async def test_stops_the_release_before_it(self, shop: Shop) -> None:
        ada = await self.forks(shop)
        ids = await shop.ids()

        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (2, 2)
        assert done.stopped_at is not None
        assert (done.stopped_at.id, done.stopped_at.reason) == (ids[3], ParkReason.FORKED)
        assert await shop.handled() == [1, 2, 3]

    async def test_is_not_released_and_what_came_after_it_neither(self, shop: Shop) -> None:
        ada = await self.forks(shop)
        await shop.release_subject(ada)
        ids = await shop.ids()

        with pytest.raises(Forked):
            await shop.release_one(ids[3])
        with pytest.raises(NotFirst, match=str(ids[3])):
            await shop.release_one(ids[4])

    async def test_is_handled_by_apply_and_the_rest_can_be_released(self, shop: Shop) -> None:
        ada = await self.forks(shop)
        await shop.release_subject(ada)
        ids = await shop.ids()

        applied = await shop.apply(ids[3])
        done = await shop.release_subject(ada)

        assert (applied.released, done.left) == (1, 0)
        assert await shop.handled() == [1, 2, 3, 2, 4]
        assert (APPLIED, str(ids[3]), 1) in await acts_of(shop.service.database)

    async def test_that_fails_when_applied_stays_forked(self, shop: Shop) -> None:
        ada = await self.forks(shop)
        await shop.release_subject(ada)
        ids = await shop.ids()
        shop.faults.on = {2}

        done = await shop.apply(ids[3])

        assert done.stopped_at is not None
        assert (done.stopped_at.reason, done.stopped_at.error_code) == (
            ParkReason.FORKED,
            "name-is-taken",
        )
        with pytest.raises(Forked):
            await shop.release_one(ids[3])

    async def test_that_is_discarded_no_longer_blocks_the_rest(self, shop: Shop) -> None:
        ada = await self.forks(shop)
        ids = await shop.ids()

        await shop.discard(ids[3])
        done = await shop.release_subject(ada)

        assert (done.released, done.left) == (3, 0)
        assert await shop.handled() == [1, 2, 3, 4]


class TestApplying:
    async def test_handles_an_event_that_is_not_the_first(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1, 2)
        ids = await shop.ids()

        done = await shop.apply(ids[1])

        assert (done.released, done.left) == (1, 1)
        assert await shop.handled() == [2]


class TestBytesWithoutASubject:
    async def test_that_still_contain_no_event_stay_parked(self, shop: Shop) -> None:
        await shop.comes(without_label(uuid4(), 1))
        (id_,) = (await shop.ids()).values()

        done = await shop.release_one(id_)

        assert (done.released, done.left) == (0, 1)
        assert (await shop.row(id_))["tries"] == 2
        assert await acts_of(shop.service.database) == [(PARKED_AGAIN, str(id_), 1)]

    async def test_once_edited_are_counted_as_a_live_event_is(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        await edit(shop, id_, ada, 1)

        done = await shop.release_one(id_)
        await shop.comes(signed_up(ada, 2), signed_up(ada, 3))

        assert (done.released, done.left) == (1, 0)
        assert await shop.handled() == [1, 2, 3]
        assert await count(shop.service.database, "inbox_missing") == 0

    async def test_that_were_seen_already_are_refused(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        await edit(shop, id_, ada, 1)
        await shop.comes(signed_up(ada, 1))

        with pytest.raises(SeenAlready):
            await shop.release_one(id_)

        assert await shop.handled() == [1]

    async def test_that_are_not_next_are_parked_with_their_subject(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(without_label(ada, 2))
        (id_,) = (await shop.ids()).values()
        await edit(shop, id_, ada, 2)
        await shop.parks(ada, 1, 3)

        done = await shop.release_one(id_)
        assert done.stopped_at is not None
        assert (done.released, done.stopped_at.reason) == (0, ParkReason.BEHIND)
        all_of_it = await shop.release_subject(ada)

        assert all_of_it.released == 3
        assert await shop.handled() == [1, 2, 3]

    async def test_of_a_forked_history_wait_for_a_decision(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        await shop.comes(signed_up(ada, 1))
        await edit(shop, id_, ada, 1)

        done = await shop.release_one(id_)

        assert done.stopped_at is not None
        assert done.stopped_at.reason is ParkReason.FORKED
        assert (await shop.row(id_))["subject"] == str(ada)

    async def test_that_fail_are_not_counted(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        await edit(shop, id_, ada, 1)
        shop.faults.on = {1}

        await shop.release_one(id_)
        shop.faults.repair()
        done = await shop.release_one(id_)

        assert done.released == 1
        assert await shop.handled() == [1]


class TestASubscriberThatKeepsRecords:
    async def test_keeps_them_after_all(self, database: str) -> None:
        broken = True

        async def keep(work: PathWork, records: object) -> None:
            if broken:
                raise NameIsTaken("taken")
            for record in records:  # type: ignore[attr-defined]
                work.handled("test.keep", decode(record.value))

        async with schema(database) as engine:
            shop = Shop(database, engine, RecordSubscriber("test.keep", TOPIC, keep))
            await shop.comes(signed_up(uuid4(), 1), signed_up(uuid4(), 1))
            broken = False
            ids = await shop.ids()

            for id_ in reversed(ids.values()):
                assert (await shop.release_one(id_)).released == 1

            assert len(await shop.service.handled("test.keep")) == 2
            assert await shop.ids() == {}
