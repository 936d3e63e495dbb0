"""The guards of the notification service."""

from typing import Final

from tests.prove.mutation import Mutation

_DELIVERIES: Final = (
    "tests/integration/notification_service/test_postgres_deliveries.py::TestPostgresDeliveries::"
)
_RETENTION: Final = "tests/integration/notification_service/test_retention.py::TestAPurge::"
_NOTIFICATION: Final = "tests/integration/notification_service/test_process.py::"
_WORKER: Final = "tests/unit/notification_service/test_worker.py::"
_TIMERS: Final = "tests/integration/chassis/timers/test_timers.py::"

NOTIFYING: Final = (
    Mutation(
        name="look-before-posting-again",
        guard="a message that may have been posted is looked for before it is posted again",
        file="notification_service/worker.py",
        before="found = await self._chat.find(claimed.address, claimed.id, since=since)",
        after="found = None",
        proven_by=(
            f"{_WORKER}TestAnUnfinishedDelivery::test_that_arrived_is_found_and_not_sent_again",
            f"{_NOTIFICATION}TestTheServiceKilled::test_between_post_and_mark_does_not_post_again",
        ),
    ),
    Mutation(
        name="purged-stays-known",
        guard="a delivery that was purged leaves what keeps its event from being planned again",
        file="notification_service/postgres_deliveries.py",
        before=(
            "        await connection.execute("
            '_REMOVE_PURGED, {"planned": [each.id for each in planned]})\n'
        ),
        after="",
        proven_by=(
            f"{_RETENTION}test_leaves_what_keeps_its_event_from_being_planned_again",
            f"{_RETENTION}test_that_commits_while_its_event_is_handled_again_lets_nothing_be_planned",
        ),
    ),
    Mutation(
        name="retried-not-purged",
        guard="a delivery that an operator retries while others are purged is not purged",
        file="notification_service/retention.py",
        before="    .with_for_update(skip_locked=True)\n",
        after="",
        proven_by=(f"{_RETENTION}test_leaves_one_that_an_operator_retries_meanwhile",),
    ),
    Mutation(
        name="paused-not-read",
        guard="a claim of deliveries reads nothing of what waits for a paused address",
        file="chassis/persistence/claims.py",
        before="group == groups.c[group.name], due_at",
        after='group.concat("") == groups.c[group.name], due_at',
        proven_by=(
            "tests/integration/notification_service/test_postgres_deliveries.py::TestAPoll::test_costs_the_same_whatever_waits_for_a_paused_address",
        ),
    ),
    Mutation(
        name="delivery-lease",
        guard="a delivery that one worker has claimed is claimed by no other until its lease ends",
        file="chassis/persistence/claims.py",
        before=".values({claims: claims + 1, due_at: until})",
        after=".values({claims: claims + 1})",
        proven_by=(
            f"{_DELIVERIES}test_a_planned_delivery_is_claimed_once",
            f"{_TIMERS}TestSeveralWorkers::test_that_died_have_their_timers_handled_by_another",
        ),
    ),
    Mutation(
        name="lease-before-post",
        guard="a worker that was frozen past its lease posts nothing",
        file="notification_service/worker.py",
        before=(
            "        if self._now() + timedelta(seconds=self._timeouts.call_s) > lease_until:\n"
            "            raise ClaimLost\n"
        ),
        after="",
        proven_by=(f"{_WORKER}TestTheLease::test_a_worker_frozen_past_its_lease_sends_nothing",),
    ),
    Mutation(
        name="lease-in-mark",
        guard="a worker that lost its claim does not change the delivery",
        file="chassis/persistence/claims.py",
        before='        claims == bindparam("of_claim", type_=claims.type),\n',
        after="",
        proven_by=(f"{_DELIVERIES}test_a_worker_that_lost_its_claim_changes_nothing",),
    ),
)
