from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest

from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from contracts.topics import EVENTS, TOPICS, USERS_USER
from contracts.users import UserSignedUpV1
from tests.declared import needs
from verification import evidence as evidence_module
from verification.checking import check_all
from verification.effects import (
    CREATES_TASKS,
    DELIVERY_RULES,
    ONBOARDING_TASKS,
    OPENS_ACCOUNTS,
    PLANS_DELIVERIES,
    SIGN_UP,
)
from verification.evidence import Evidence
from verification.report import MAX_EXAMPLES, Check, Expected

SHA = b"\1" * 32
TOPIC_ID = str(uuid4())


class System:
    """People who signed up, and all effects of that, as rows of the evidence."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.next_offset = 0
        self.topics = [topic.name for topic in TOPICS]

    def publish(self, topic: str, subject: str, event_id: str, **changes: Any) -> None:
        """Add an event's record, and the audit record of it."""
        event = {"sequence": 1, "type": SIGN_UP, "sha256": SHA, "right_key": True, "bad": None}
        event |= changes
        place = (topic, 0, self.next_offset)
        self.next_offset += 1
        identity = () if event["bad"] else (subject, event["sequence"], event_id, event["type"])
        self.evidence.add(
            "published",
            [
                (
                    *place,
                    *(identity or (None,) * 4),
                    event["sha256"],
                    event["right_key"],
                    event["bad"],
                )
            ],
        )
        identity_of_record = None if event["bad"] else event_id
        hashes = event["sha256"], event["sha256"]
        self.evidence.add("records", [(*place, identity_of_record, *hashes, self.next_offset)])

    def sign_up(self, name: str, *, last_sequence: int = 1) -> None:
        """Add a user with all effects, but without the events of account and tasks."""
        add = self.evidence.add
        add("users", [(name, True)])
        add("aggregates", [("users.user", name, last_sequence)])
        self.publish("users.user", name, f"event of {name}")
        self.open(f"account of {name}", name)
        add("tasks", [(f"{task} of {name}", name, task) for task in ONBOARDING_TASKS])
        rule, event_id = "slack-growth-user-signed-up", f"event of {name}"
        delivery = f"delivery of {name}"
        add("deliveries", [(delivery, rule, event_id, "slack", "sent", False, "1.0")])
        add("messages", [("1.0", delivery)])

    def open(self, account: str, user: str, balance: int = 0, position: int = 1) -> None:
        """Add an account as its row is at last, and the change of its opening."""
        self.evidence.add("accounts", [(account, user, position, 1, balance, position, 0, "open")])
        opening = (f"opening of {account}", account, 1, None, "opening", "USD", 0, 0, None)
        self.evidence.add("changes", [opening])

    def check(self, **expected: Any) -> dict[str, Check]:
        self.evidence.has_messages = True
        self.evidence.add("partitions", [(topic, 0, 0, 0, TOPIC_ID) for topic in self.topics])
        return {each.name: each for each in check_all(self.evidence, Expected(**expected))}

    def broken(self, **expected: Any) -> dict[str, int]:
        """Return the names of what is broken, and how often."""
        checks = self.check(**expected).values()
        return {each.name: each.violated for each in checks if each.violated}


@pytest.fixture
def system() -> Iterator[System]:
    evidence = Evidence()
    yield System(evidence)
    evidence.close()


class TestASystemWhereNothingIsLost:
    def test_an_empty_one_holds(self, system: System) -> None:
        assert system.broken() == {}

    def test_one_with_all_effects_of_its_sign_ups_holds(self, system: System) -> None:
        for number in range(50):
            system.sign_up(f"user {number}")

        checks = system.check()

        assert {name: each.violated for name, each in checks.items() if each.violated} == {}
        assert checks["accounts"].looked_at == {"users": 50, "accounts": 50}


class TestSequences:
    def test_a_repeat_is_counted_and_kept_once(self, system: System) -> None:
        system.sign_up("ada")
        system.evidence.add(
            "published",
            [("users.user", 0, 99, "ada", 1, "event of ada", SIGN_UP, SHA, True, None)],
        )

        checks = system.check()

        assert checks["sequences"].holds
        assert checks["sequences"].looked_at["repeats"] == 1
        assert checks["audit"].holds

    def test_numbers_that_begin_above_one_are_a_gap(self, system: System) -> None:
        system.sign_up("ada")
        system.publish("users.user", "bob", "later", sequence=2, type="other")
        system.evidence.add("aggregates", [("users.user", "bob", 2)])

        assert system.broken() == {"sequences": 1}

    def test_events_in_two_partitions_of_a_topic_have_no_order(self, system: System) -> None:
        system.sign_up("ada")
        row = ("users.user", 7, 0, "ada", 2, "second", "other", SHA, True, None)
        system.evidence.add("published", [row])
        system.evidence.add("records", [("users.user", 7, 0, "second", SHA, SHA, 2)])
        system.evidence.add("aggregates", [("users.user", "ada", 2)])

        assert system.check()["sequences"].holds


class TestNumbers:
    @pytest.mark.parametrize(
        ("numbers", "found"),
        [
            ([1, 2, 3], []),
            ([3, 1, 2], []),
            ([2, 3], [("number 1", "is of no audit record")]),
            ([1, 2, 6], [("number 3", "and those up to 5 are of no audit record")]),
            ([1, 2, 2], [("number 2", "is of 2 audit records")]),
            ([1, None], [("event 1", "its audit record has no number")]),
        ],
    )
    def test_have_no_gap_and_no_repeat(
        self, system: System, numbers: list[int | None], found: list[tuple[str, str]]
    ) -> None:
        for at, number in enumerate(numbers):
            row = ("users.user", 0, at, f"event {at}", SHA, SHA, number)
            system.evidence.add("records", [row])

        violations = system.check()["numbers"].violations

        assert [(each.subject, each.problem) for each in violations] == found


class TestAudit:
    def test_a_repeat_may_be_the_one_that_is_kept(self, system: System) -> None:
        system.sign_up("ada")
        row = ("users.user", 1, 5, "ada", 1, "event of ada", SIGN_UP, SHA, True, None)
        system.evidence.add("published", [row])

        assert system.check()["audit"].holds

    def test_a_record_that_is_no_event_is_kept_once_per_offset(self, system: System) -> None:
        for _ in range(2):
            system.publish("users.user", "", "", bad="not JSON")

        checks = system.check(unreadable=2)

        assert checks["audit"].holds
        assert (checks["topics"].violated, checks["topics"].explained) == (0, 2)


class TestWhatIsExplained:
    def test_a_sign_up_that_an_operator_withheld_has_no_effects(self, system: System) -> None:
        system.evidence.add("users", [("ada", True)])
        system.evidence.add("aggregates", [("users.user", "ada", 1)])
        system.publish("users.user", "ada", "withheld", type="users.event-withheld.v1")

        checks = system.check()

        assert [name for name, each in checks.items() if not each.holds] == []
        assert (checks["accounts"].explained, checks["onboarding-tasks"].explained) == (1, 2)

    def test_an_event_that_one_subscriber_parked_explains_no_effect_of_another(
        self, system: System
    ) -> None:
        system.sign_up("ada")
        system.evidence.add(
            "parked", [("audit", "audit.keep", "users.user", 0, 99, "bob", "event of bob")]
        )
        system.evidence.add("users", [("bob", True)])

        assert system.broken(parked=True) == {"accounts": 1, "onboarding-tasks": 2}


class TestATry:
    @pytest.mark.parametrize(("offset", "times"), [(6, 0), (7, 1)])
    def test_is_reported_unless_all_subscribers_have_passed_its_offset(
        self, system: System, offset: int, times: int
    ) -> None:
        # A worker that lost its partition may count a try after another has handled the event.
        place = ("users.user", 0)
        system.evidence.add("partitions", [(*place, 0, 7, TOPIC_ID)])
        system.evidence.add(
            "progress", [("accounts", "accounts.open-account", *place, 7, TOPIC_ID, None)]
        )
        system.evidence.add("tries", [("accounts", *place, offset, 1)])

        assert system.broken().get("nothing-waits", 0) == times


class TestProgress:
    @pytest.mark.parametrize(
        ("topic_id", "held_because", "times"),
        [
            (TOPIC_ID, None, 0),
            (str(UNKNOWN_TOPIC_ID), None, 0),
            (str(uuid4()), None, 1),
            (str(uuid4()), "users.user was made again", 1),
            (TOPIC_ID, "users.user was cut", 1),
        ],
        ids=["well", "unknown", "another", "another and held", "held"],
    )
    def test_that_is_held_or_of_another_topic_is_reported_once(
        self, system: System, topic_id: str, held_because: str | None, times: int
    ) -> None:
        system.evidence.add("partitions", [("users.user", 1, 0, 7, TOPIC_ID)])
        system.evidence.add(
            "progress",
            [
                (each, f"{each}.x", "users.user", 1, 7, topic_id, held_because)
                for each in USERS_USER.consumers
            ],
        )

        assert system.broken().get("progress", 0) == times * len(USERS_USER.consumers)


class TestAFactInTwoVersions:
    V2 = "users.user-signed-up.v2"

    @pytest.fixture
    def system(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
        """A system that publishes sign-ups as V2 too, and whose only user is ada."""
        monkeypatch.setattr(evidence_module, "EVENTS", {**EVENTS, self.V2: UserSignedUpV1})
        evidence = Evidence()
        system = System(evidence)
        system.sign_up("ada", last_sequence=2)
        system.publish("users.user", "ada", "V2 of ada", sequence=2, type=self.V2)
        evidence.add("versions", [("event of ada", "sign-up"), ("V2 of ada", "sign-up")])
        yield system
        evidence.close()

    def test_with_its_effects_by_one_of_them_holds(self, system: System) -> None:
        checks = system.check()

        assert {name: each.violated for name, each in checks.items() if each.violated} == {}
        assert checks["effects"].looked_at["sign-ups"] == 1

    @needs("notification")
    def test_with_an_effect_by_each_of_them_is_reported(self, system: System) -> None:
        rule = "slack-growth-user-signed-up"
        delivery = ("again", rule, "V2 of ada", "slack", "sent", False, "2.0")
        system.evidence.add("deliveries", [delivery])
        system.evidence.add("messages", [("2.0", "again")])

        assert system.broken() == {"effects": 1}

    @pytest.mark.parametrize("of", ["V1", "V2"])
    def test_without_an_effect_is_explained_while_either_of_them_is_parked(
        self, system: System, of: str
    ) -> None:
        system.publish("users.user", "bob", "V1 of bob")
        system.publish("users.user", "bob", "V2 of bob", sequence=2, type=self.V2)
        system.evidence.add("versions", [(f"V{n} of bob", "sign-up of bob") for n in (1, 2)])
        system.evidence.add(
            "parked",
            [
                (name.split(".")[0], name, "users.user", 0, 1, "bob", f"{of} of bob")
                for name in (OPENS_ACCOUNTS, CREATES_TASKS, PLANS_DELIVERIES)
            ],
        )

        effects = system.check(parked=True)["effects"]

        # The account, each task, and each delivery.
        explained = 1 + len(ONBOARDING_TASKS) + len(DELIVERY_RULES)
        assert (effects.violated, effects.explained) == (0, explained)


class TestABatchThatCannotBeRead:
    @pytest.mark.parametrize(
        ("begin", "end", "leave_out", "times"),
        [(7, 9, 0, 0), (6, 10, 0, 0), (7, 9, 1, 1), (8, 9, 0, 1), (7, 8, 0, 1)],
    )
    def test_is_explained_once_every_consumer_has_skipped_all_of_it(
        self, system: System, begin: int, end: int, leave_out: int, times: int
    ) -> None:
        place = ("users.user", 0)
        system.evidence.add("unreadable_batches", [(*place, 7, 9, "its CRC does not match")])
        system.evidence.add(
            "skipped", [(each, *place, begin, end) for each in USERS_USER.consumers[leave_out:]]
        )

        assert system.broken().get("topics", 0) == times


class TestPublishedMoney:
    """Grace gets 100 and gives Alan 30; what Alan gives back, and what Grace holds, varies."""

    DEPOSIT = ("e1", "grace", 2, "deposit", "deposit", "USD", 100, 100, None)
    OUT = ("e2", "grace", 3, "transfer", "transfer", "USD", -30, 70, None)
    IN = ("e3", "alan", 2, "transfer", "transfer", "USD", 30, 30, None)
    BACK = ("e4", "alan", 3, "reversal", "reversal", "USD", -30, 0, "transfer")
    HOME = ("e5", "grace", 4, "reversal", "reversal", "USD", 30, 100, "transfer")
    PLACED = ("e6", "grace", "hold", "placed", 50, None)
    CAPTURED = ("e7", "grace", "hold", "captured", 20, "capture")
    TAKEN = ("e8", "grace", 5, "capture", "capture", "USD", -20, 80, None)
    GIVEN = ("e9", "alan", 4, "capture", "capture", "USD", 20, 20, None)
    CHANGES = (DEPOSIT, OUT, IN, BACK, HOME, TAKEN, GIVEN)

    def problems(
        self,
        system: System,
        changes: Sequence[tuple[object, ...]] = CHANGES,
        steps: Sequence[tuple[object, ...]] = (PLACED, CAPTURED),
        **expected: Any,
    ) -> set[tuple[str, str]]:
        for name, balance, position in (("grace", 80, 5), ("alan", 20, 4)):
            system.evidence.add("users", [(f"user {name}", True)])
            system.open(name, f"user {name}", balance, position)
        system.evidence.add("changes", changes)
        system.evidence.add("hold_steps", steps)
        check = system.check(**expected)["published-money"]
        return {(each.subject, each.problem) for each in check.violations}

    def without(self, *changes: tuple[object, ...]) -> list[tuple[object, ...]]:
        return [each for each in self.CHANGES if each not in changes]

    def test_that_makes_every_account_holds_also_with_repeats(self, system: System) -> None:
        assert (
            self.problems(system, [*self.CHANGES, self.OUT], [self.PLACED] * 2 + [self.CAPTURED])
            == set()
        )

    def test_without_its_last_event_makes_another_balance(self, system: System) -> None:
        assert (
            "alan",
            "its balance is 20 at position 4, but its events make 0 at position 3",
        ) in self.problems(system, self.without(self.GIVEN))

    def test_with_another_balance_than_its_row_is_seen(self, system: System) -> None:
        system.open("eve", "user eve", balance=1)

        assert ("eve", "its balance is 1 at position 1, but its events make 0 at position 1") in (
            self.problems(system)
        )

    def test_without_an_event_between_has_a_gap(self, system: System) -> None:
        assert ("grace", "position 3 makes 70 of 0 and -30 at position 1") in self.problems(
            system, self.without(self.DEPOSIT)
        )

    def test_with_a_balance_that_its_delta_does_not_make_is_seen(self, system: System) -> None:
        wrong = (*self.DEPOSIT[:7], 101, None)

        assert ("grace", "position 2 makes 101 of 0 and 100 at position 1") in self.problems(
            system, [wrong, *self.without(self.DEPOSIT)]
        )

    def test_of_a_transfer_with_one_side_is_seen(self, system: System) -> None:
        assert ("transfer", "its 1 lines in USD make 30") in self.problems(
            system, self.without(self.OUT)
        )

    def test_of_a_transfer_in_two_currencies_is_seen(self, system: System) -> None:
        other = (*self.IN[:5], "EUR", *self.IN[6:])

        assert {
            ("transfer", "its 1 lines in EUR make 30"),
            ("transfer", "its 1 lines in USD make -30"),
        } <= self.problems(system, [other, *self.without(self.IN)])

    def test_of_a_deposit_that_takes_money_is_seen(self, system: System) -> None:
        wrong = (*self.DEPOSIT[:6], -100, -100, None)

        assert ("grace", "deposit deposit is of -100") in self.problems(
            system, [wrong, *self.without(self.DEPOSIT)]
        )

    def test_of_a_reversal_of_nothing_is_seen(self, system: System) -> None:
        back, home = (*self.BACK[:8], "deposit"), (*self.HOME[:8], "deposit")

        assert {
            ("alan", "reversal reversal brings back what no transfer moved"),
            ("grace", "reversal reversal brings back what no transfer moved"),
        } == self.problems(system, [back, home, *self.without(self.BACK, self.HOME)])

    def test_of_a_transfer_that_was_reversed_twice_is_seen(self, system: System) -> None:
        back = ("e10", "alan", 5, "again", "reversal", "USD", -30, -10, "transfer")
        home = ("e11", "grace", 6, "again", "reversal", "USD", 30, 110, "transfer")

        assert ("transfer", "was reversed 2 times") in self.problems(
            system, [*self.CHANGES, back, home]
        )

    @pytest.mark.parametrize(
        ("steps", "problem"),
        [
            ([PLACED], ("grace", "0 are held, but its events make 50")),
            ([CAPTURED], ("hold", "was placed 0 times, and ended 1")),
            (
                [PLACED, CAPTURED, ("e12", "grace", "hold", "released", None, None)],
                ("hold", "was placed 1 times, and ended 2"),
            ),
            (
                [PLACED, (*CAPTURED[:4], 21, "capture")],
                ("hold", "its capture of 21 is no transaction"),
            ),
        ],
        ids=["still open", "never placed", "ended twice", "captured otherwise"],
    )
    def test_of_a_hold_that_is_wrong_is_seen(
        self, system: System, steps: list[tuple[object, ...]], problem: tuple[str, str]
    ) -> None:
        assert self.problems(system, steps=steps) == {problem}

    @pytest.mark.parametrize(
        ("states", "problem"),
        [
            (["frozen", "unfrozen"], set()),
            (["frozen"], {("grace", "it is open, but its events make it frozen")}),
            (
                ["frozen", "unfrozen", "closed"],
                {("grace", "it is open, but its events make it closed")},
            ),
        ],
    )
    def test_of_a_state_that_its_row_does_not_have_is_seen(
        self, system: System, states: list[str], problem: set[tuple[str, str]]
    ) -> None:
        for sequence, state in enumerate(states, start=1):
            system.publish(
                "accounts.account",
                "grace",
                f"it is {state}",
                sequence=sequence,
                type=f"accounts.account-{state}.v1",
            )

        assert self.problems(system) == problem

    def test_that_waits_to_be_published_is_explained(self, system: System) -> None:
        system.evidence.add("outbox", [("accounts", "accounts.account", "alan", 4, True)])

        assert self.problems(system, self.without(self.GIVEN), parked=True) == set()

    def test_that_waits_elsewhere_explains_nothing(self, system: System) -> None:
        system.evidence.add("outbox", [("accounts", "accounts.account", "grace", 9, True)])

        assert len(self.problems(system, self.without(self.GIVEN), parked=True)) == 2


class TestAReport:
    def test_it_names_twenty_and_counts_all(self, system: System) -> None:
        system.evidence.add("users", [(f"user {number}", True) for number in range(500)])

        accounts = system.check()["accounts"]

        assert accounts.violated == 500
        assert len(accounts.violations) == MAX_EXAMPLES == 20


class TestARecordThatIsNoEvent:
    @pytest.mark.parametrize(
        ("table", "row"),
        [
            ("tolerated", ("users.user", 0, 0, SHA)),
            ("discarded", ("accounts.open-account", "users.user", 0, 0, None)),
        ],
    )
    def test_is_explained_once_an_operator_accepted_or_discarded_it(
        self, system: System, table: str, row: tuple[object, ...]
    ) -> None:
        system.publish("users.user", "", "", bad="not JSON")
        system.evidence.add(table, [row])

        topics = system.check()["topics"]

        assert (topics.violated, topics.explained) == (0, 1)

    def test_is_not_explained_by_other_bytes(self, system: System) -> None:
        system.publish("users.user", "", "", bad="not JSON")
        system.evidence.add("tolerated", [("users.user", 0, 0, b"\2" * 32)])

        assert system.check()["topics"].violated == 1

    def test_is_not_explained_by_another_place(self, system: System) -> None:
        system.publish("users.user", "", "", bad="not JSON")
        system.evidence.add("tolerated", [("users.user", 1, 0, SHA), ("users.task", 0, 0, SHA)])

        assert system.check()["topics"].violated == 1
