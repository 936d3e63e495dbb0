"""Each invariant holds where nothing is lost, and is broken by what breaks it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from chassis.correlation import new_id
from contracts.envelope import encode
from contracts.operations import ParkedEventDiscardedV1
from local_cluster.ports import free_port
from tests.declared import declared, needs
from verification.addresses import CannotVerify
from verification.databases import ServiceDatabase
from verification.evidence import Evidence
from verification.invariants import INVARIANTS
from verification.report import Expected
from verification.verify import verify

from .breaks import A_PARKED_SIGN_UP, A_ROW_SET_ASIDE, AN_OUTBOX_ROW, BREAKS, NO_ACCOUNT, Break
from .conftest import MONEY_EVENTS, PEOPLE, ChangedSystem, Origin

pytestmark = [pytest.mark.xdist_group("verification"), pytest.mark.timeout(240)]


class TestASystemWhereNothingIsLost:
    def test_every_invariant_holds_in_a_system_that_ran(self, origin: Origin) -> None:
        assert origin.report.broken() == ""
        assert [each.name for each in origin.report.checks] == [each.name for each in INVARIANTS]
        assert origin.report["accounts"].looked_at == {"users": PEOPLE, "accounts": PEOPLE}
        assert origin.report["sequences"].looked_at == {
            "subjects": 4 * PEOPLE,
            "events": 4 * PEOPLE + MONEY_EVENTS,
            "repeats": 0,
        }
        assert origin.report["audit"].looked_at["audit records"] == 4 * PEOPLE + MONEY_EVENTS
        assert origin.report["published-money"].looked_at["lines"] == PEOPLE + 5
        if declared("slack-stand-in"):
            assert origin.report["slack"].looked_at["messages"] == PEOPLE

    async def test_every_sign_up_that_was_answered_is_found(self, system: ChangedSystem) -> None:
        expected = Expected(users=frozenset(map(UUID, system.origin.people)))

        report = await verify(system.addresses, expected, wait_s=0)

        assert report.broken() == ""
        assert report["commands"].looked_at == {"answers": PEOPLE}

    async def test_without_slacks_stand_in_its_messages_are_left_out_and_the_report_names_why(
        self, system: ChangedSystem
    ) -> None:
        report = await verify(replace(system.addresses, slack_stand_in_url=None), wait_s=0)

        assert report.holds
        assert report["slack"].left_out_because == "no VERIFY_SLACK_STAND_IN_URL"


class TestWhatIsBrokenInADatabase:
    @pytest.mark.parametrize("broken", [b for b in BREAKS if declared(b.service)], ids=str)
    async def test_is_seen(self, system: ChangedSystem, broken: Break) -> None:
        await system.execute(broken.service, broken.statements)

        report = await verify(system.addresses, wait_s=0)

        check = report[broken.check]
        assert any(broken.problem in each.problem for each in check.violations), report.broken()
        assert check.violated > 0
        assert not report.holds

    async def test_an_answered_command_without_its_user_is_seen(
        self, system: ChangedSystem
    ) -> None:
        lost = uuid4()

        report = await verify(system.addresses, Expected(users=frozenset({lost})), wait_s=0)

        assert [each.subject for each in report["commands"].violations] == [str(lost)]


class TestWhatIsBrokenOnATopic:
    async def test_a_missing_topic_is_seen(self, system: ChangedSystem) -> None:
        await system.remove_topic("users.task")

        report = await verify(system.addresses, wait_s=0)

        assert "users.task: the topic is missing" in report.broken()

    async def test_a_record_that_is_no_event_is_seen_unless_it_is_expected(
        self, system: ChangedSystem
    ) -> None:
        await system.publish(b"not an event", system.person)

        report = await verify(system.addresses, wait_s=0)
        expecting = await verify(system.addresses, Expected(unreadable=1), wait_s=0)

        (violation,) = report["topics"].violations
        assert violation.problem.startswith("not JSON")
        assert report["audit"].violations[0].problem == "has no audit record"
        assert (expecting["topics"].violated, expecting["topics"].explained) == (0, 1)

    async def test_a_record_under_another_key_is_seen(self, system: ChangedSystem) -> None:
        await system.publish(system.sign_up.value, "another", system.sign_up.headers)

        report = await verify(system.addresses, wait_s=0)

        assert "has another key" in report.broken()

    async def test_a_repeat_is_counted_and_breaks_no_sequence(self, system: ChangedSystem) -> None:
        await system.publish(system.sign_up.value, system.person, system.sign_up.headers)

        report = await verify(system.addresses, wait_s=0)

        assert report["sequences"].holds
        assert report["sequences"].looked_at["repeats"] == 1
        assert report["audit"].holds

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (
                {"id": str(new_id()), "sequence": "0000000003"},
                "of numbers up to 3, 1 are missing",
            ),
            ({"id": str(new_id())}, "number 1 is of 2 events"),
            ({"sequence": "0000000002"}, "has 2 numbers or types"),
            ({"correlationid": "another"}, "came with different bytes"),
        ],
        ids=["a gap", "a fork", "one event twice", "one event with two contents"],
    )
    async def test_a_broken_sequence_is_seen(
        self, system: ChangedSystem, changes: dict[str, str], problem: str
    ) -> None:
        await system.publish_changed(**changes)

        report = await verify(system.addresses, wait_s=0)

        violations = report["sequences"].violations
        assert [each.subject for each in violations if problem in each.problem] == [system.person]

    async def test_events_out_of_order_are_seen(self, system: ChangedSystem) -> None:
        for number in (3, 2):
            await system.publish_changed(id=str(new_id()), sequence=f"{number:010d}")

        report = await verify(system.addresses, wait_s=0)

        assert report["sequences"].violated == 1
        assert "number 3 was published before its predecessor" in report.broken()

    async def test_an_event_of_a_subject_that_its_producer_does_not_know_is_seen(
        self, system: ChangedSystem
    ) -> None:
        await system.publish_changed(id=str(new_id()), subject="unknown")

        report = await verify(system.addresses, wait_s=0)

        assert [each.subject for each in report["producers"].violations] == ["unknown"]

    async def test_an_event_that_a_test_made_up_is_explained_but_has_to_be_read(
        self, system: ChangedSystem
    ) -> None:
        await system.publish_changed(id=str(new_id()), subject="unknown")

        expected = Expected(made_up=frozenset({"unknown"}))
        report = await verify(system.addresses, expected, wait_s=0)

        assert report["producers"].holds
        assert report["effects"].holds
        assert not report["progress"].holds, "no consumer has read it"


@needs("slack-stand-in")
class TestWhatIsBrokenOnSlack:
    async def test_a_message_posted_twice_is_seen(self, system: ChangedSystem) -> None:
        system.messages.append(system.messages[0] | {"ts": "9999999999.000001"})

        report = await verify(system.addresses, wait_s=0)

        assert [each.problem for each in report["slack"].violations] == ["was posted 2 times"]

    async def test_a_delivery_marked_as_maybe_repeated_may_have_two_messages_and_not_three(
        self, system: ChangedSystem
    ) -> None:
        await system.execute("notification", "UPDATE deliveries SET maybe_repeated = true")

        system.messages.append(system.messages[0] | {"ts": "9999999999.000001"})
        twice = await verify(system.addresses, wait_s=0)
        system.messages.append(system.messages[0] | {"ts": "9999999999.000002"})
        thrice = await verify(system.addresses, wait_s=0)

        assert twice["slack"].holds
        assert twice["slack"].looked_at["repeated"] == 1
        assert [each.problem for each in thrice["slack"].violations] == ["was posted 3 times"]

    async def test_a_message_that_names_no_delivery_is_seen(self, system: ChangedSystem) -> None:
        system.messages.append(system.messages[0] | {"ts": "9999999999.000001", "metadata": None})

        report = await verify(system.addresses, wait_s=0)

        assert [each.subject for each in report["slack"].violations] == ["9999999999.000001"]


@needs("notification")
class TestDeliveriesThatWerePurged:
    async def test_are_counted_and_break_nothing(self, system: ChangedSystem) -> None:
        await system.execute(
            "notification",
            "WITH gone AS (DELETE FROM deliveries RETURNING event_id, rule, id)"
            " INSERT INTO purged_deliveries SELECT * FROM gone",
        )

        report = await verify(system.addresses, wait_s=0)

        effects = report["effects"]
        assert effects.looked_at["deliveries purged"] == effects.looked_at["deliveries"] > 0
        assert effects.holds
        assert report["slack"].holds
        assert report["nothing-waits"].holds


class TestWhatIsExplained:
    async def test_a_missing_effect_of_a_parked_event_is_explained(
        self, system: ChangedSystem
    ) -> None:
        await system.execute(
            "accounts",
            A_PARKED_SIGN_UP + NO_ACCOUNT,
        )

        report = await verify(system.addresses, wait_s=0)
        expecting = await verify(system.addresses, Expected(parked=True), wait_s=0)

        assert (report["accounts"].violated, report["accounts"].explained) == (0, 1)
        assert report["nothing-waits"].violated == 1
        assert expecting["nothing-waits"].explained == 1
        assert expecting["nothing-waits"].holds

    async def test_a_missing_effect_of_a_discarded_event_is_explained(
        self, system: ChangedSystem
    ) -> None:
        act = ParkedEventDiscardedV1(
            by="ada",
            why="not wanted",
            subscriber="accounts.open-account",
            topic="users.user",
            partition=system.sign_up.partition,
            offset=system.sign_up.offset,
            parked_subject=system.person,
            parked_event_id=UUID(system.event_id),
            parked_type="users.user-signed-up.v1",
        )
        event = encode(
            act,
            id=new_id(),
            source="/accounts",
            subject=str(uuid4()),
            time=datetime.now(UTC),
            sequence=1,
            correlationid="c-7",
        )
        await system.execute("accounts", NO_ACCOUNT)
        await system.publish(
            event.payload, event.key.decode(), event.headers, topic="accounts.operations"
        )

        report = await verify(system.addresses, wait_s=0)

        assert (report["accounts"].violated, report["accounts"].explained) == (0, 1)
        assert report["effects"].explained == 1

    async def test_a_number_that_waits_in_the_outbox_is_explained(
        self, system: ChangedSystem
    ) -> None:
        third = AN_OUTBOX_ROW.replace(" 2,", " 3,")
        await system.execute("users", A_ROW_SET_ASIDE + third)
        await system.execute("users", "UPDATE users SET sequence = 3 WHERE id = '{person}'")

        report = await verify(system.addresses, wait_s=0)
        expecting = await verify(system.addresses, Expected(parked=True), wait_s=0)

        assert (report["producers"].violated, report["producers"].explained) == (0, 1)
        assert report["nothing-waits"].violated == 2
        assert expecting.broken() == ""

    async def test_an_outbox_row_that_waits_behind_no_other_is_not_explained(
        self, system: ChangedSystem
    ) -> None:
        await system.execute("users", AN_OUTBOX_ROW)

        report = await verify(system.addresses, Expected(parked=True), wait_s=0)

        assert report["nothing-waits"].violated == 1


class TestASystemThatCannotBeVerified:
    async def test_under_traffic_is_reported_as_not_quiet(self, system: ChangedSystem) -> None:
        enough = asyncio.Event()

        async def traffic() -> None:
            while not enough.is_set():
                await system.publish_changed(id=str(new_id()))

        busy = asyncio.create_task(traffic())
        try:
            with pytest.raises(CannotVerify, match="not quiet"):
                await verify(system.addresses, wait_s=1)
        finally:
            enough.set()
            await busy

    async def test_with_an_event_published_while_it_is_read_is_reported_as_moving(
        self, system: ChangedSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = ServiceDatabase.read_into

        async def read_and_publish(self: ServiceDatabase, evidence: Evidence) -> None:
            await read(self, evidence)
            await system.publish_changed(id=str(new_id()), subject="new")

        monkeypatch.setattr(ServiceDatabase, "read_into", read_and_publish)

        with pytest.raises(CannotVerify, match="it moved while it was read"):
            await verify(system.addresses, wait_s=0)

    async def test_because_a_database_does_not_answer_is_named_without_its_password(
        self, system: ChangedSystem
    ) -> None:
        port = free_port()
        away = f"postgresql://audit:secret@127.0.0.1:{port}/audit"
        system.databases["audit"] = away

        with pytest.raises(CannotVerify) as raised:
            await verify(system.addresses, wait_s=0)

        assert str(raised.value).startswith(f"the database of audit (127.0.0.1:{port}/audit): ")
        assert "secret" not in str(raised.value)

    async def test_because_kafka_does_not_answer_is_named(self, system: ChangedSystem) -> None:
        bootstrap = f"127.0.0.1:{free_port()}"

        with pytest.raises(CannotVerify, match=f"Kafka .{bootstrap}."):
            await verify(replace(system.addresses, kafka_bootstrap=bootstrap), wait_s=0)

    async def test_because_a_database_belongs_to_another_service_is_named(
        self, system: ChangedSystem
    ) -> None:
        system.databases["audit"] = system.databases["users"]

        with pytest.raises(CannotVerify, match="the database of audit"):
            await verify(system.addresses, wait_s=0)
