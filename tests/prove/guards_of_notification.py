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

_STREAM_EVENTS: Final = "tests/unit/notification_service/test_stream_events.py::"
_STREAMS: Final = "tests/unit/notification_service/test_streams.py::"
_STREAM_ROUTES: Final = "tests/unit/notification_service/test_stream_routes.py::"
_STREAM_LOG: Final = "tests/integration/notification_service/test_streams.py::TestTheLog::"

NOTIFYING: Final = (
    Mutation(
        name="stream-of-its-user",
        guard="an event is stored for the stream of the user whom it names, and of no other",
        file="notification_service/stream_events.py",
        before="user_id=event.user_id,",
        after="user_id=event.account_id,",
        proven_by=(
            f"{_STREAM_EVENTS}test_an_event_is_stored_for_its_user_without_the_operators_words",
        ),
    ),
    Mutation(
        name="stream-without-operators",
        guard="no user is sent who an operator was, nor what they wrote",
        file="notification_service/stream_events.py",
        before='event.model_dump(mode="json", exclude=_OPERATORS)',
        after='event.model_dump(mode="json")',
        proven_by=(
            f"{_STREAM_EVENTS}test_an_event_is_stored_for_its_user_without_the_operators_words",
        ),
    ),
    Mutation(
        name="stream-locks-in-order",
        guard="users whose events are numbered in one transaction are locked in the order of ids",
        file="notification_service/stream_log.py",
        before="for user_id in sorted(by_user)",
        after="for user_id in by_user",
        proven_by=(
            f"{_STREAM_LOG}test_of_a_chunk_is_one_statement_for_each_table_and_locks_users_in_order",
        ),
    ),
    Mutation(
        name="stream-gap-told",
        guard="a stream that is behind deleted events says so, and is not sent what follows them",
        file="notification_service/stream_log.py",
        before="if row.number == at.number + len(events[row.place]) + 1:",
        after="if row.number is not None:",
        proven_by=(
            f"{_STREAM_LOG}test_events_are_deleted_after_their_time_and_a_reader_behind_them_is_told",
        ),
    ),
    Mutation(
        name="stream-epoch",
        guard="an id of another epoch is no place in a stream",
        file="notification_service/streams.py",
        before="asked.epoch != last.epoch or ",
        after="",
        proven_by=(
            f"{_STREAMS}TestOpening::test_behind_an_id_of_another_epoch_says_to_read_again",
        ),
    ),
    Mutation(
        name="stream-not-queued",
        guard="nothing more is read for a stream whose client has not taken what was read",
        file="notification_service/streams.py",
        before="[each for each in self._open if each.is_waiting]",
        after="[*self._open]",
        proven_by=(
            f"{_STREAMS}TestReading::test_nothing_is_read_for_a_client_that_has_not_taken_what_was",
        ),
    ),
    Mutation(
        name="stream-places",
        guard="a stream takes none of the gateway's places for requests",
        file="gateway/upstream.py",
        before="settings.max_streams if streams else settings.max_connections\n",
        after="settings.max_connections\n",
        proven_by=(
            "tests/integration/gateway/test_streams.py::TestAStream::test_takes_no_place_of_a_request",
        ),
    ),
    Mutation(
        name="stream-cookie-path",
        guard="the cookie of a stream is sent to no other path",
        file="notification_service/stream_routes.py",
        before="path=_PATH,",
        after='path="/",',
        proven_by=(
            f"{_STREAM_ROUTES}test_the_cookie_is_for_the_stream_alone_and_no_script_has_it",
        ),
    ),
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
