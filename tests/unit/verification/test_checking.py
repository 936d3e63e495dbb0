from collections.abc import Iterator
from typing import Any

import pytest

from contracts.topics import TOPICS
from verification.checking import check_all
from verification.effects import ONBOARDING_TASKS, SIGN_UP
from verification.evidence import Evidence
from verification.report import MOST_EXAMPLES, Check, Expected

SHA = b"\1" * 32


class World:
    """People who signed up, and all that followed, as rows of the evidence."""

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
        self.evidence.add(
            "records",
            [(*place, None if event["bad"] else event_id, event["sha256"], event["sha256"])],
        )

    def sign_up(self, name: str) -> None:
        """Add a user, with everything that follows but the events of account and tasks."""
        add = self.evidence.add
        add("users", [(name, True)])
        add("aggregates", [("users.user", name, 1)])
        self.publish("users.user", name, f"event of {name}")
        add("accounts", [(f"account of {name}", name, 1, 1)])
        add("tasks", [(f"{task} of {name}", name, task) for task in ONBOARDING_TASKS])
        rule, event_id = "slack-growth-user-signed-up", f"event of {name}"
        delivery = f"delivery of {name}"
        add("deliveries", [(delivery, rule, event_id, "slack", "sent", False, "1.0")])
        add("messages", [("1.0", delivery)])

    def check(self, **expected: Any) -> dict[str, Check]:
        self.evidence.has_messages = True
        self.evidence.add("partitions", [(topic, 0, 0, 0) for topic in self.topics])
        return {each.name: each for each in check_all(self.evidence, Expected(**expected))}

    def broken(self, **expected: Any) -> dict[str, int]:
        """Return the names of what is broken, and how often."""
        checks = self.check(**expected).values()
        return {each.name: each.violated for each in checks if each.violated}


@pytest.fixture
def world() -> Iterator[World]:
    evidence = Evidence()
    yield World(evidence)
    evidence.close()


class TestAWholeWorld:
    def test_an_empty_one_holds(self, world: World) -> None:
        assert world.broken() == {}

    def test_one_where_everything_followed_holds(self, world: World) -> None:
        for number in range(50):
            world.sign_up(f"user {number}")

        checks = world.check()

        assert {name: each.violated for name, each in checks.items() if each.violated} == {}
        assert checks["accounts"].looked_at == {"users": 50, "accounts": 50}


class TestSequences:
    def test_a_repeat_is_counted_and_kept_once(self, world: World) -> None:
        world.sign_up("ada")
        world.evidence.add(
            "published",
            [("users.user", 0, 99, "ada", 1, "event of ada", SIGN_UP, SHA, True, None)],
        )

        checks = world.check()

        assert checks["sequences"].holds
        assert checks["sequences"].looked_at["repeats"] == 1
        assert checks["audit"].holds

    def test_numbers_that_begin_above_one_are_a_gap(self, world: World) -> None:
        world.sign_up("ada")
        world.publish("users.user", "bob", "later", sequence=2, type="other")
        world.evidence.add("aggregates", [("users.user", "bob", 2)])

        assert world.broken() == {"sequences": 1}

    def test_order_is_of_one_partition_for_a_grown_topic_has_the_rest_elsewhere(
        self, world: World
    ) -> None:
        world.sign_up("ada")
        row = ("users.user", 7, 0, "ada", 2, "second", "other", SHA, True, None)
        world.evidence.add("published", [row])
        world.evidence.add("records", [("users.user", 7, 0, "second", SHA, SHA)])
        world.evidence.add("aggregates", [("users.user", "ada", 2)])

        assert world.check()["sequences"].holds


class TestAudit:
    def test_a_repeat_may_be_the_one_that_is_kept(self, world: World) -> None:
        world.sign_up("ada")
        row = ("users.user", 1, 5, "ada", 1, "event of ada", SIGN_UP, SHA, True, None)
        world.evidence.add("published", [row])

        assert world.check()["audit"].holds

    def test_what_is_no_event_is_kept_once_a_place(self, world: World) -> None:
        for _ in range(2):
            world.publish("users.user", "", "", bad="not JSON")

        checks = world.check(unreadable=2)

        assert checks["audit"].holds
        assert (checks["topics"].violated, checks["topics"].explained) == (0, 2)


class TestWhatWasHeldBack:
    def test_a_sign_up_that_an_operator_withheld_has_no_effects(self, world: World) -> None:
        world.evidence.add("users", [("ada", True)])
        world.evidence.add("aggregates", [("users.user", "ada", 1)])
        world.publish("users.user", "ada", "withheld", type="users.event-withheld.v1")

        checks = world.check()

        assert [name for name, each in checks.items() if not each.holds] == []
        assert (checks["accounts"].explained, checks["onboarding-tasks"].explained) == (1, 2)

    def test_what_one_subscriber_parked_excuses_no_other(self, world: World) -> None:
        world.sign_up("ada")
        world.evidence.add(
            "parked", [("audit", "audit.keep", "users.user", 0, 99, "bob", "event of bob")]
        )
        world.evidence.add("users", [("bob", True)])

        assert world.broken(parked=True) == {"accounts": 1, "onboarding-tasks": 2}


class TestWhatWasBegun:
    @pytest.mark.parametrize(("offset", "times"), [(6, 0), (7, 1)])
    def test_waits_unless_all_have_passed_it(self, world: World, offset: int, times: int) -> None:
        # A worker that lost its partition may count a try after another has handled the event.
        place = ("users.user", 0)
        world.evidence.add("partitions", [(*place, 0, 7)])
        world.evidence.add("progress", [("accounts", "accounts.open-account", *place, 7)])
        world.evidence.add("tries", [("accounts", *place, offset, 1)])

        assert world.broken().get("nothing-waits", 0) == times


class TestAReport:
    def test_it_names_twenty_and_counts_all(self, world: World) -> None:
        world.evidence.add("users", [(f"user {number}", True) for number in range(500)])

        accounts = world.check()["accounts"]

        assert accounts.violated == 500
        assert len(accounts.violations) == MOST_EXAMPLES == 20
