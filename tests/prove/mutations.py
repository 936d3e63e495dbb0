"""Every guard that a promise of ``docs/guarantees.md`` depends on, and how to remove it."""

from typing import Final

from tests.prove.guards_of_notification import NOTIFYING
from tests.prove.guards_of_reading import READING
from tests.prove.guards_of_the_edge import AT_THE_EDGE
from tests.prove.mutation import Mutation

_CHASSIS: Final = "tests/integration/chassis"
_PROGRESS: Final = f"{_CHASSIS}/consuming/test_processor.py::TestProgressDecides::"
_FAILS: Final = f"{_CHASSIS}/consuming/test_processor.py::TestAnEventThatFails::"
_MANY_FAIL: Final = f"{_CHASSIS}/consuming/test_processor.py::TestManyThatFail::"
_CONTENTION: Final = f"{_CHASSIS}/consuming/test_processor.py::TestContention::"
_SLOW: Final = f"{_CHASSIS}/consuming/test_processor.py::TestASlowSubscriber::"
_DEADLY: Final = f"{_CHASSIS}/consuming/test_processor.py::TestAnEventThatKillsItsProcess::"
_DATABASE_AWAY: Final = f"{_CHASSIS}/consuming/test_processor.py::TestADatabaseThatIsAway::"
_BATCHES: Final = f"{_CHASSIS}/consuming/test_group_commit.py::"
_UNIT_BATCHES: Final = "tests/unit/chassis/consuming/test_group_commit.py::"
_SEEN: Final = f"{_CHASSIS}/consuming/test_subscribers.py::TestWhatWasSeenBefore::"
_VERSIONS: Final = f"{_CHASSIS}/consuming/test_versions.py::"
_RELEASED_VERSIONS: Final = f"{_CHASSIS}/operations/test_versions.py::"
_INBOX_LOCK: Final = f"{_CHASSIS}/consuming/test_subscribers.py::TestTheInboxLock::"
_RELAY: Final = f"{_CHASSIS}/publishing/test_relay.py::"
_SLOT: Final = f"{_CHASSIS}/persistence/test_outbox_slot.py::TestAnEvent::"
_UNIT_RELAY: Final = "tests/unit/chassis/publishing/test_relay.py::"
_LOST: Final = f"{_CHASSIS}/persistence/test_transactor.py::TestAConnectionLost::"
_DEADLINE: Final = f"{_CHASSIS}/persistence/test_transactor.py::TestTheDeadline::"
_ISOLATION: Final = f"{_CHASSIS}/consuming/test_isolation.py::"
_SESSION: Final = f"{_CHASSIS}/persistence/test_database.py::TestASession::"
_TRANSPORT: Final = f"{_CHASSIS}/consuming/test_faust_transport.py::"
_CHUNKS: Final = "tests/unit/chassis/consuming/test_faust_transport.py::TestTheConsumer::"
_FETCHES: Final = "tests/unit/chassis/consuming/test_faust_transport.py::"
_POSITIONS: Final = f"{_FETCHES}TestPositions::"
_HOLES: Final = f"{_FETCHES}TestOffsetsWithoutARecord::"
_CANNOT_READ: Final = f"{_FETCHES}TestWhatCannotBeRead::"
_STOPS_ITS_PARTITION: Final = (
    f"{_CANNOT_READ}test_stops_its_partition_only_and_is_reported_with_its_offset"
)
_LAGS: Final = f"{_FETCHES}TestAPartitionThatLags::"
_BATCH_END: Final = "tests/unit/chassis/kafka/test_raw_fetch.py::TestWhereItEnds::"
_FLIPPED: Final = f"{_CHASSIS}/consuming/test_unreadable.py::TestABatchWithAFlippedBit::"
_FOREIGN: Final = f"{_CHASSIS}/consuming/test_unreadable.py::TestATransactionOfAnotherProducer::"
_SKIPPING: Final = f"{_CHASSIS}/consuming/test_unreadable.py::TestPassingOver::"
_ODD_HEADER: Final = f"{_CHASSIS}/consuming/test_unreadable.py::TestAHeaderNameThatIsNotUtf8::"
_FAR_BEHIND: Final = "tests/unit/chassis/consuming/test_far_behind.py::TestAChunk::"
_REPLAY: Final = f"{_CHASSIS}/consuming/test_replay.py::"
_REST: Final = f"{_CHASSIS}/consuming/test_processor.py::TestOffsetsWithoutARecord::"
_RAISING_REFUSED: Final = f"{_CHASSIS}/kafka/test_partitions.py::TestRaisingIsRefused::"
_HOLDS: Final = f"{_CHASSIS}/consuming/test_holds.py::"
_HELD: Final = f"{_HOLDS}TestWhatIsHeld::"
_IDENTITY: Final = f"{_CHASSIS}/consuming/test_topic_identity.py::"
_BEGINS: Final = f"{_CHASSIS}/consuming/test_worker.py::TestWhereItBegins::"
_WORKERS: Final = f"{_CHASSIS}/consuming/test_worker.py::TestSeveralWorkers::"
_WATCH: Final = f"{_CHASSIS}/consuming/test_worker.py::TestTheWatch::"
_AGGREGATES: Final = f"{_CHASSIS}/persistence/test_aggregate_table.py::"
_USERS_HTTP: Final = "tests/unit/users_service/test_http.py::"
_SIGN_IN: Final = "tests/unit/users_service/test_sign_in.py::TestSignInLimits::"
_PASSWORDS: Final = "tests/unit/users_service/test_values.py::TestPassword::"
_ACCESS_KEYS: Final = "tests/unit/chassis/web/test_auth.py::TestKeys::"
_KEYS: Final = f"{_CHASSIS}/web/test_idempotency.py::"
_TIMERS: Final = f"{_CHASSIS}/timers/test_timers.py::"
_DEADLY_TIMER: Final = (
    f"{_TIMERS}TestATimerThatKillsItsProcess::"
    "test_is_parked_after_some_deaths_and_what_was_beside_it_is_handled"
)
_RELEASE: Final = f"{_CHASSIS}/operations/test_release.py::TestAtOnce::"

_CUT_BEFORE_EFFECTS: Final = (
    "test_for_a_moment_at_any_moment_does_no_harm[False-INSERT INTO effects]"
)
_COMMIT_MIDWAY: Final = (
    '            await connection._driver.execute("COMMIT")\n'
    '            await connection._driver.execute("BEGIN")\n'
)
_TAKE: Final = "            parked = await self._take(connection, chunks, before)\n"

_COMMANDS: Final = (
    Mutation(
        name="ask-after-commit",
        guard="after a COMMIT without an answer the database is asked whether it took effect",
        file="chassis/persistence/transactor.py",
        before="if not await self._was_committed(mark, deadline):\n            raise lost",
        after="raise lost",
        proven_by=(f"{_LOST}test_before_the_answer_to_commit_does_not_run_the_command_twice",),
    ),
    Mutation(
        name="life-of-the-server",
        guard="a transaction id that a crashed server gave out again is not taken for ours",
        file="chassis/persistence/transactor.py",
        before='if life == mark.life and status == "committed":',
        after='if status == "committed":',
        proven_by=(
            f"{_CHASSIS}/persistence/test_transactor.py::TestAServerThatCrashes::test_a_transaction_id_that_is_given_again_is_not_taken_for_the_commands",
        ),
    ),
    Mutation(
        name="loaded-is-locked",
        guard="what a transaction has loaded no other one changes before it ends",
        file="chassis/persistence/aggregate_table.py",
        before="        .with_for_update(key_share=True)\n",
        after="",
        proven_by=(
            f"{_ISOLATION}TestCommands::test_two_with_a_rule_over_two_aggregates_run_one_after_the_other",
            f"{_ISOLATION}test_a_rule_over_two_aggregates_holds_in_any_interleaving",
        ),
    ),
    Mutation(
        name="locked-in-order",
        guard="aggregates are locked in the order of their ids, so that commands do not deadlock",
        file="chassis/persistence/aggregate_table.py",
        before="        .order_by(table.c.id)\n",
        after="        .order_by(func.random())\n",
        proven_by=(
            f"{_ISOLATION}TestCommands::test_that_load_the_same_aggregates_in_opposite_orders_do_not_deadlock",
        ),
    ),
    Mutation(
        name="chunk-locked-at-once",
        guard="the aggregates of a whole chunk are locked before its first event is handled",
        file="chassis/consuming/processor.py",
        before="        await lock_aggregates(work, to_take)\n",
        after="",
        proven_by=(
            f"{_ISOLATION}TestChunks::test_that_change_the_same_aggregates_in_opposite_orders_do_not_deadlock",
        ),
    ),
    Mutation(
        name="one-deadline",
        guard="a command ends by its deadline, whatever it waits for",
        file="chassis/persistence/transactor.py",
        before="        timeout = asyncio.timeout_at(deadline)\n",
        after="        timeout = asyncio.timeout_at(None)\n",
        proven_by=(f"{_DEADLINE}test_ends_the_wait_for_a_place_in_the_pool",),
    ),
    Mutation(
        name="optimistic-lock",
        guard="an aggregate that another transaction has changed meanwhile is not overwritten",
        file="chassis/persistence/aggregate_table.py",
        before=".where(table.c.id == given.c.id, table.c.version == given.c.version - 1)",
        after=".where(table.c.id == given.c.id)",
        proven_by=(
            f"{_AGGREGATES}TestWriting::test_an_aggregate_that_was_changed_since_it_was_loaded_is_stale",
        ),
    ),
    Mutation(
        name="expected-conflict-unlogged",
        guard="a name that is taken is no error of the database, whose log would name it",
        file="chassis/persistence/aggregate_table.py",
        before="        if rows and self.conflicts:\n",
        after="        if rows and not rows:\n",
        proven_by=(
            f"{_AGGREGATES}TestConflicts::test_an_expected_one_is_no_error_of_the_server_whose_log_would_name_the_values",
        ),
    ),
    Mutation(
        name="idempotency-keys",
        guard="a repeat under the same Idempotency-Key gets the first answer and changes nothing",
        file="chassis/web/idempotency.py",
        before="                if stored is not None:\n",
        after="                if stored is not None and not keys:\n",
        proven_by=(
            "tests/unit/chassis/web/test_idempotency.py::TestAnIdempotentCommand::test_a_repeat_gets_the_first_answer_and_changes_nothing",
            f"{_KEYS}TestAtOnce::test_twenty_requests_with_one_key_have_one_effect_and_one_answer",
        ),
    ),
    Mutation(
        name="idle-in-transaction",
        guard="PostgreSQL ends a session that idles in a transaction, which frees its locks",
        file="chassis/persistence/database.py",
        before='    "idle_in_transaction_session_timeout": "4s",\n',
        after="",
        proven_by=(f"{_SESSION}test_that_idles_in_a_transaction_ends_and_frees_its_locks",),
    ),
    Mutation(
        name="writable-server",
        guard="of several servers every part connects to the one that takes writes",
        file="chassis/persistence/connecting.py",
        before="target_session_attrs=wanted,",
        after="target_session_attrs=SessionAttribute.any,",
        proven_by=(
            "tests/faults/test_promotion.py::TestAPromotedStandby::test_is_found_by_every_part_and_has_all_that_was_answered",
        ),
    ),
)

_PUBLISHING: Final = (
    Mutation(
        name="delete-after-ack",
        guard="the relay deletes an outbox row only after Kafka has acknowledged it",
        file="chassis/publishing/relay.py",
        before="pipeline.acknowledged = [*pipeline.acknowledged, *acknowledged]",
        after="pipeline.acknowledged = [*acknowledged, *(row for row, _ in failed)]",
        proven_by=(
            f"{_RELAY}TestPublishing::test_a_row_that_kafka_has_not_acknowledged_is_sent_again",
            f"{_UNIT_RELAY}TestPublishing::test_deletes_only_rows_that_kafka_acknowledged",
        ),
    ),
    Mutation(
        name="outbox-in-the-slot",
        guard="a row that Debezium publishes is deleted only while the slot gives it to Debezium",
        file="chassis/persistence/outbox.py",
        before="AND EXISTS (SELECT {SLOT_GIVES_OUTBOX})",
        after="OR false",
        proven_by=(
            f"{_SLOT}test_stays_in_the_table_while_the_slot_is_not_there",
            f"{_SLOT}test_stays_in_the_table_where_the_slot_is_another_databases",
        ),
    ),
    Mutation(
        name="slot-has-begun",
        guard="a slot that has not found where it begins does not count as there",
        file="chassis/persistence/outbox.py",
        before="      AND confirmed_flush_lsn IS NOT NULL\n",
        after="",
        proven_by=(f"{_SLOT}test_stays_in_the_table_while_the_slot_has_not_found_where_it_begins",),
    ),
    Mutation(
        name="outbox-is-published",
        guard="a slot counts as there only while a publication has the outbox",
        file="chassis/persistence/outbox.py",
        before="AND EXISTS (\n          SELECT FROM pg_publication_rel",
        after="AND true OR EXISTS (\n          SELECT FROM pg_publication_rel",
        proven_by=(
            f"{_SLOT}test_stays_in_the_table_where_the_publication_does_not_have_the_table",
        ),
    ),
    Mutation(
        name="lowest-position-first",
        guard="each read of the outbox begins at its lowest position, not after the last row read",
        file="chassis/publishing/outbox_reader.py",
        before="        return rows\n",
        after=(
            '        seen = getattr(self, "_seen", 0)\n'
            '        self._seen = max([seen, *(row["position"] for row in rows)])\n'
            '        return [row for row in rows if row["position"] > seen]\n'
        ),
        proven_by=(f"{_RELAY}TestPublishing::test_a_row_that_commits_late_is_not_skipped",),
    ),
    Mutation(
        name="suspended-not-read",
        guard="a poll of the outbox reads nothing of what waits of a suspended topic",
        file="chassis/publishing/outbox_reader.py",
        before="aggregatetype BETWEEN topic AND topic",
        after="aggregatetype = topic",
        proven_by=(
            f"{_CHASSIS}/publishing/test_outbox_reader.py::TestAPoll::test_costs_the_same_whatever_waits_of_a_suspended_topic",
        ),
    ),
    Mutation(
        name="relay-lock",
        guard="one relay of a service publishes at a time; the others stand by",
        file="chassis/publishing/relay.py",
        before="while not await try_lock(connection, self._lock_name):",
        after="while False:",
        proven_by=(f"{_RELAY}TestTwoRelays::test_never_work_at_once",),
    ),
    Mutation(
        name="relay-lock-connection",
        guard="the relay reads and deletes on the connection that holds its lock",
        file="chassis/publishing/relay.py",
        before="await self._publish(OutboxReader(connection))",
        after=("await self._publish(OutboxReader(await connect(self._settings, self._lock_name)))"),
        proven_by=(f"{_RELAY}TestTwoRelays::test_one_that_lost_its_lock_sends_nothing_more",),
    ),
    Mutation(
        name="relay-order",
        guard="rows that follow a failed row of their aggregate are sent again, after it",
        file="chassis/publishing/relay.py",
        before="            elif aggregate not in stuck:\n",
        after="            else:\n",
        proven_by=(
            f"{_UNIT_RELAY}TestPublishing::test_keeps_the_rows_that_follow_a_failed_one_of_their_aggregate",
        ),
    ),
    Mutation(
        name="nothing-passed-over",
        guard="rows that were read ahead are not sent while an earlier row could not be sent",
        file="chassis/publishing/relay.py",
        before="pipeline.fetched = prefetched if len(pipeline.sent) == len(rows) else ()",
        after="pipeline.fetched = prefetched",
        proven_by=(
            f"{_UNIT_RELAY}TestPublishing::test_fetches_again_from_the_first_row_that_could_not_be_sent",
        ),
    ),
    Mutation(
        name="first-row-alone",
        guard="the first row to a partition is sent alone, so that the broker knows the producer",
        file="chassis/publishing/producer.py",
        before="            elif partition not in established:\n",
        after="            elif False:\n",
        proven_by=(
            f"{_RELAY}TestARefusedRow::test_with_its_whole_first_batch_is_not_overtaken_by_the_second",
        ),
    ),
    Mutation(
        name="fresh-producer",
        guard="after a refusal a new producer is opened; only rows it can't send are set aside",
        file="chassis/publishing/relay.py",
        before=(
            "                stuck.add(aggregate)\n"
            "                await producer.close()\n"
            "                producer = None\n"
        ),
        after="                stuck.add(aggregate)\n",
        proven_by=(
            f"{_RELAY}TestARefusedRow::test_is_set_aside_alone_and_its_aggregates_later_rows_wait_behind_it",
        ),
    ),
    Mutation(
        name="behind-what-was-set-aside",
        guard="an aggregate's later rows wait while an earlier one is set aside",
        file="chassis/publishing/outbox_reader.py",
        before="                    AND stuck.aggregateid = outbox.aggregateid\n",
        after="                    AND stuck.aggregateid = outbox.aggregateid AND false\n",
        proven_by=(
            f"{_RELAY}TestARefusedRow::test_is_set_aside_alone_and_its_aggregates_later_rows_wait_behind_it",
        ),
    ),
)

_FETCHING: Final = (
    Mutation(
        name="epoch-rule",
        guard="a rewind of an earlier epoch is ignored, so a lost chunk is fetched again once",
        file="chassis/consuming/chunk_thread.py",
        before="if position is not None and position.epoch == epoch:",
        after="if position is not None:",
        proven_by=(f"{_POSITIONS}test_a_rewind_of_an_epoch_that_is_over_does_nothing",),
    ),
    Mutation(
        name="epoch-skip",
        guard="a chunk fetched before a seek, or from a revoked partition, is not handled",
        file="chassis/consuming/faust_transport.py",
        before="return position is not None and position.epoch == chunk.epoch",
        after="return True",
        proven_by=(
            f"{_CHUNKS}test_a_chunk_is_current_in_its_epoch_only[revoked]",
            f"{_CHUNKS}test_a_chunk_is_current_in_its_epoch_only[sought since]",
        ),
    ),
    Mutation(
        name="lost-tail",
        guard="a lost last chunk, which no later chunk can reveal, is fetched again",
        file="chassis/consuming/faust_transport.py",
        before="            await self._thread.rewind(tp, position.next, position.epoch)\n",
        after="",
        proven_by=(f"{_TRANSPORT}TestALostTail::test_is_fetched_again_when_it_is_not_in_progress",),
    ),
    Mutation(
        name="position-where-we-left-it",
        guard="a chunk begins where our last seek or fetch ended; no other code moves the position",
        file="chassis/consuming/chunk_thread.py",
        before="            if found != position.next:\n",
        after="            if False:\n",
        proven_by=(f"{_HOLES}test_are_passed_over_by_no_code_but_ours",),
    ),
    Mutation(
        name="offsets-without-a-record",
        guard="offsets that hold no record move progress, if need be by an empty chunk",
        file="chassis/consuming/chunk_thread.py",
        before="            if end is not None and end > position.next:\n",
        after="            if end is not None and found.get(tp):\n",
        proven_by=(f"{_HOLES}test_make_an_empty_chunk",),
    ),
    Mutation(
        name="failed-fetch-moves-nothing",
        guard="a fetch that fails for one partition loses no record of another",
        file="chassis/consuming/chunk_thread.py",
        before="        for tp, records in found.items():\n",
        after="        for tp, records in ((each, found.get(each, [])) for each in partitions):\n",
        proven_by=(f"{_STOPS_ITS_PARTITION}[CorruptRecordException]",),
    ),
    Mutation(
        name="rest-of-a-chunk",
        guard="a chunk handled event by event moves progress to its end, not to its last record",
        file="chassis/consuming/single_events.py",
        before="        return await self._pass_over_rest(subscriber, processed, in_progress)\n",
        after="        return True\n",
        proven_by=(f"{_REST}test_move_progress_also_when_a_chunk_is_handled_event_by_event",),
    ),
    Mutation(
        name="read-committed",
        guard="records of a transaction are handled once it commits; those of an aborted one never",
        file="chassis/consuming/chunk_thread.py",
        before='consumer._isolation_level = "read_committed"',
        after='consumer._isolation_level = "read_uncommitted"',
        proven_by=(
            f"{_FOREIGN}test_that_was_aborted_is_not_handled",
            f"{_FOREIGN}test_that_is_open_hides_what_follows_and_is_no_stall",
        ),
    ),
    Mutation(
        name="stable-end",
        guard="a partition ends for readers where an open transaction begins, so it is no stall",
        file="chassis/consuming/chunk_thread.py",
        before="{tp: consumer.last_stable_offset(tp) for tp in known}",
        after="{tp: consumer.highwater(tp) for tp in known}",
        proven_by=(f"{_FOREIGN}test_that_is_open_hides_what_follows_and_is_no_stall",),
    ),
    Mutation(
        name="no-partitions-amid-a-transaction",
        guard="a topic gets no more partitions while an open transaction hides records of it",
        file="chassis/kafka/partitions.py",
        before="    if hidden := sum((await hidden_offsets(settings, partitions)).values()):\n",
        after="    if hidden := 0:\n",
        proven_by=(f"{_RAISING_REFUSED}test_while_an_open_transaction_hides_records",),
    ),
    Mutation(
        name="no-partitions-while-held",
        guard="a topic gets no more partitions while one of its subscribers is held",
        file="chassis/kafka/partitions.py",
        before="""row["subscriber"] for row in rows if row["held_because"]""",
        after="""row["subscriber"] for row in ()""",
        proven_by=(f"{_RAISING_REFUSED}test_while_a_subscriber_is_held",),
    ),
    Mutation(
        name="errors-by-type",
        guard="a fetch's error is waited for by its exact type; any other stops one partition",
        file="chassis/consuming/chunk_thread.py",
        before="        if type(error) not in WAITED_FOR:\n",
        after="        if not isinstance(error, (KafkaError, OSError)):\n",
        proven_by=(
            f"{_STOPS_ITS_PARTITION}[CorruptRecordException]",
            f"{_STOPS_ITS_PARTITION}[OSError]",
            f"{_FLIPPED}test_stops_its_partition_there_and_nothing_else",
        ),
    ),
    Mutation(
        name="given-up-after-some-tries",
        guard="a partition that can't be read is given up after some tries, with its offset",
        file="chassis/consuming/careful_reading.py",
        before="        if partition.tries >= _MOST_TRIES:\n",
        after="        if False:\n",
        proven_by=(
            f"{_STOPS_ITS_PARTITION}[CorruptRecordException]",
            f"{_FLIPPED}test_stops_its_partition_there_and_nothing_else",
        ),
    ),
    Mutation(
        name="still-partition",
        guard="a partition that has more and does not move is read by itself, to find out why",
        file="chassis/consuming/chunk_thread.py",
        before="                if now - still[tp][1] >= _STILL_AFTER_S:\n",
        after="                if False:\n",
        proven_by=(f"{_CANNOT_READ}test_is_found_although_the_client_only_logs_it",),
    ),
    Mutation(
        name="tried-again-is-no-stall",
        guard="the process does not end for a partition that is tried again",
        file="chassis/consuming/faust_transport.py",
        before="{tp: offset for tp, offset in lagging.items() if tp not in tried}",
        after="dict(lagging)",
        proven_by=(f"{_LAGS}test_is_no_stall_while_it_is_tried_again[tried again]",),
    ),
    Mutation(
        name="crc-of-a-batch",
        guard="no record of a batch is handled whose CRC does not match",
        file="chassis/kafka/raw_fetch.py",
        before="if calc_crc32c(self.raw[_CRC_BEGINS_AT:].tobytes()) != self._field(4):",
        after="if False:",
        proven_by=(f"{_FLIPPED}test_stops_its_partition_there_and_nothing_else",),
    ),
    Mutation(
        name="end-of-a-batch",
        guard="where a skipped batch ends is compared with where the next one begins",
        file="chassis/kafka/raw_fetch.py",
        before="                return said if offset < said <= limit else limit\n",
        after="                return said\n",
        proven_by=(f"{_BATCH_END}test_is_where_the_next_batch_begins_when_it_says_more",),
    ),
    Mutation(
        name="only-what-stands-there",
        guard="a skipped batch moves the progress of those subscribers only that stand at it",
        file="chassis/consuming/skip_batch.py",
        before="          AND next_offset >= :begin AND next_offset < :end\n",
        after="          AND next_offset < :end AND CAST(:begin AS bigint) >= 0\n",
        proven_by=(f"{_SKIPPING}test_moves_those_that_stand_there_only",),
    ),
    Mutation(
        name="read-on-behind-it",
        guard="a worker reads on behind a batch that an operator skipped, without a restart",
        file="chassis/consuming/watchdog.py",
        before="                given_up[tp].position.next < offset or offset",
        after="                offset",
        proven_by=(f"{_FLIPPED}test_is_passed_over_by_an_operator_while_the_worker_runs",),
    ),
    Mutation(
        name="odd-header-parks",
        guard="a record with a header's name that is not UTF-8 is parked as it came",
        file="chassis/consuming/records.py",
        before='        "".join(found).encode()\n',
        after="        pass\n",
        proven_by=(f"{_ODD_HEADER}test_parks_its_record_as_it_came_and_no_other_of_its_batch",),
    ),
    Mutation(
        name="topic-shorter-than-progress",
        guard="a partition that does not hold the stored offset is not read; health reports it",
        file="chassis/consuming/holds.py",
        before="        if not first <= offset.next_offset <= end:\n",
        after="        if False:\n",
        proven_by=(
            f"{_BEGINS}test_a_topic_that_is_shorter_than_progress_is_not_read_and_reported",
            f"{_HELD}test_is_what_comes_after_the_end_or_before_the_beginning",
        ),
    ),
    Mutation(
        name="made-again-held",
        guard="a topic that was deleted and made again is recognised by Kafka's id, and held",
        file="chassis/consuming/holds.py",
        before="        if are_different(offset.topic_id, self.topic_id):\n",
        after="        if False:\n",
        proven_by=(f"{_HELD}test_is_every_partition_of_a_topic_that_was_made_again",),
    ),
    Mutation(
        name="new-partitions-held",
        guard="where a topic was made again with more partitions, the new ones are held too",
        file="chassis/consuming/offsets.py",
        before='"held_because": made_again(topic, others[0], topic_id) if others else None,',
        after='"held_because": None,',
        proven_by=(f"{_HELD}test_is_each_partition_that_is_new_where_a_topic_was_made_again",),
    ),
    Mutation(
        name="ids-looked-at",
        guard="a worker compares the ids of its topics with Kafka's every few seconds",
        file="chassis/consuming/worker.py",
        before="            await consumer.leave_all(\n",
        after="            list(\n",
        proven_by=(
            f"{_IDENTITY}TestALook::test_notices_a_topic_that_was_made_again_without_a_rebalance",
        ),
    ),
    Mutation(
        name="missed-offset-held",
        guard="an offset that a fetch did not find is held although the topic has grown since",
        file="chassis/consuming/holds.py",
        before="        if missed is not None and missed >= first:\n",
        after="        if False:\n",
        proven_by=(
            f"{_HELD}test_is_what_a_fetch_did_not_find_although_the_topic_has_grown_since",
            f"{_IDENTITY}TestATopicThatIsCut::test_at_its_end_while_it_is_read_is_held_by_what_a_fetch_did_not_find",
        ),
    ),
    Mutation(
        name="hold-stored",
        guard="a hold is stored in the database, and outlives every restart",
        file="chassis/consuming/start_positions.py",
        before="            is_new = await holds.hold(connection, seen, begun, self._now())\n",
        after="            is_new = False\n",
        proven_by=(
            f"{_IDENTITY}TestATopicThatIsCut::test_at_its_end_is_held_though_it_has_grown_when_the_worker_comes_back",
        ),
    ),
    Mutation(
        name="held-not-moved",
        guard="no chunk moves progress that is held, or that is in another topic of the same name",
        file="chassis/consuming/offsets.py",
        before="          AND NOT locked.held\n",
        after="",
        proven_by=(f"{_HOLDS}TestAHeldPartition::test_is_moved_by_no_chunk",),
    ),
    Mutation(
        name="held-not-handled",
        guard="no event is handled for a subscriber that is held, or from another topic",
        file="chassis/consuming/offsets.py",
        before="if not row.held and row.paused_at is None",
        after="if row.paused_at is None",
        proven_by=(
            f"{_HOLDS}TestAChunk::test_of_a_topic_that_is_gone_is_left",
            f"{_HOLDS}TestAChunk::test_of_a_partition_that_is_held_is_left",
            f"{_HOLDS}TestAChunk::test_is_handled_by_the_subscribers_that_are_not_held",
        ),
    ),
    Mutation(
        name="parked-by-topic",
        guard="an event parks also where an event of a former topic has the same place",
        file="chassis/consuming/dead_letters.py",
        before='                each["topic_id"] = topic_ids.get(\n',
        after="                topic_ids.get(\n",
        proven_by=(f"{_HOLDS}TestAPlace::test_parks_an_event_where_another_was_parked_before",),
    ),
    Mutation(
        name="attempts-by-topic",
        guard="attempts at an event of a former topic do not count against one at the same place",
        file="chassis/consuming/attempts.py",
        before='            "topic_id": topic_id,\n',
        after="",
        proven_by=(f"{_HOLDS}TestAPlace::test_counts_the_attempts_of_its_own_topic_only",),
    ),
    Mutation(
        name="places-given-free",
        guard="when a hold ends, parked events leave their places to the records that come there",
        file="chassis/consuming/holds.py",
        before="        .values(topic_id=parked.c.id)\n",
        after="        .values(topic_id=parked.c.topic_id)\n",
        proven_by=(
            f"{_HOLDS}TestTheEndOfAHold::test_keeps_what_is_parked_and_what_parks_at_its_place_afterwards",
        ),
    ),
    Mutation(
        name="crash-watch",
        guard="the process ends when Faust has crashed, which by itself raises no error",
        file="chassis/consuming/watchdog.py",
        before="            if self._app.crashed or self._app.should_stop:\n",
        after="            if False:\n",
        proven_by=(f"{_WATCH}test_ends_when_faust_crashed",),
    ),
    Mutation(
        name="standstill-watch",
        guard="the process ends when a partition stands still although Kafka has more records",
        file="chassis/consuming/watchdog.py",
        before="            if stuck or time.monotonic() - healthy_at > _JOIN_WITHIN_S:\n",
        after="            if time.monotonic() - healthy_at > _JOIN_WITHIN_S:\n",
        proven_by=(f"{_WATCH}test_ends_when_a_partition_does_not_move_although_there_is_more",),
    ),
    Mutation(
        name="join-watch",
        guard="the process ends when its worker does not join the consumer group in time",
        file="chassis/consuming/watchdog.py",
        before="            if stuck or time.monotonic() - healthy_at > _JOIN_WITHIN_S:\n",
        after="            if stuck:\n",
        proven_by=(f"{_WATCH}test_ends_when_it_may_not_join_the_group",),
    ),
    Mutation(
        name="thread-answered",
        guard="the event loop serves the consumer's thread while that stops, so no stop can hang",
        file="chassis/consuming/chunk_thread.py",
        before="                await self._thread.ended.wait()\n",
        after="                self._thread.stop()\n",
        proven_by=(f"{_WATCH}test_answers_the_consumer_thread_while_that_ends",),
    ),
    Mutation(
        name="started-whole",
        guard="a stop during Faust's start waits for the start, so no thread is left running",
        file="chassis/consuming/faust_app.py",
        before="    await asyncio.wait([started], timeout=_START_WITHIN_S)\n",
        after="",
        proven_by=(f"{_WATCH}test_stops_a_worker_when_it_has_started_lest_its_thread_is_left",),
    ),
    Mutation(
        name="all-shared-out",
        guard="partitions that no worker of a group has are assigned again",
        file="chassis/consuming/worker.py",
        before="                await consumer.rejoin()\n",
        after="",
        proven_by=(
            f"{_BEGINS}test_a_worker_that_came_back_at_once_reads_partitions_that_are_added_then",
        ),
    ),
    Mutation(
        name="worker-name-lock",
        guard="a worker joins its group only while no other process uses its name",
        file="chassis/consuming/worker.py",
        before=(
            "            if not await self._until_stopped("
            "stack.enter_async_context(self._worker_name.held())):\n"
            "                return\n"
        ),
        after="",
        proven_by=(f"{_WORKERS}test_of_one_name_work_one_after_the_other",),
    ),
)

_PROCESSING: Final = (
    Mutation(
        name="effects-with-progress",
        guard="progress is committed with the effects, not before them",
        file="chassis/consuming/processor.py",
        before=_TAKE,
        after=f"{_COMMIT_MIDWAY}{_TAKE}",
        proven_by=(f"{_DATABASE_AWAY}{_CUT_BEFORE_EFFECTS}",),
    ),
    Mutation(
        name="progress-with-effects",
        guard="the effects are committed with progress, not before it",
        file="chassis/consuming/processor.py",
        before=_TAKE,
        after=(
            '            await connection._driver.execute("ROLLBACK")\n'
            '            await connection._driver.execute("BEGIN")\n'
            f"{_TAKE}{_COMMIT_MIDWAY}"
            "            await offsets.advance(connection, self._names, self.topic.name, ranges,"
            " self._now(), without=left)\n"
        ),
        proven_by=(
            f"{_DATABASE_AWAY}test_as_it_answers_the_commit_has_one_that_keeps_records_keep_none_twice",
        ),
    ),
    Mutation(
        name="refuse-by-progress",
        guard="a chunk that begins after the stored offset is refused and fetched again from there",
        file="chassis/consuming/far_behind.py",
        before="            raise ChunkRefused(lowest)\n",
        after="            pass\n",
        proven_by=(f"{_PROGRESS}test_a_chunk_after_a_hole_is_refused_and_fetched_again",),
    ),
    Mutation(
        name="trim-by-progress",
        guard="records of a chunk that lie before the stored offset are skipped",
        file="chassis/consuming/processor.py",
        before="if record.offset >= before[chunk.partition].get(subscriber.name, chunk.end)",
        after="if subscriber.name in before[chunk.partition]",
        proven_by=(f"{_PROGRESS}test_one_that_keeps_records_is_given_none_again",),
    ),
    Mutation(
        name="refuse-one-by-one",
        guard="an event handled alone is refused when it begins after the stored offset",
        file="chassis/consuming/single_events.py",
        before=(
            "        if event.begin > next_offset:\n            raise ChunkRefused(next_offset)\n"
        ),
        after="",
        proven_by=(
            f"{_PROGRESS}test_a_hole_that_opens_while_event_after_event_is_handled_is_noticed_too",
        ),
    ),
    Mutation(
        name="trim-one-by-one",
        guard="an event handled alone is skipped when another worker has handled it meanwhile",
        file="chassis/consuming/single_events.py",
        before="        return next_offset <= record.offset\n",
        after="        return True\n",
        proven_by=(f"{_PROGRESS}test_two_that_handle_it_event_by_event_at_once_do_it_once",),
    ),
    Mutation(
        name="progress-never-back",
        guard="a chunk that arrives late never moves progress back",
        file="chassis/consuming/offsets.py",
        before="          AND locked.next_offset < locked.ends\n",
        after="",
        proven_by=(f"{_PROGRESS}test_an_older_chunk_that_comes_late_moves_nothing_back",),
    ),
    Mutation(
        name="moved-is-handled",
        guard="a chunk is handled for each subscriber whose progress it moves",
        file="chassis/consuming/far_behind.py",
        before="if offset >= chunk.begin}",
        after="if offset >= chunk.begin and name not in self.at(chunk.tp)}",
        proven_by=(f"{_FAR_BEHIND}test_is_still_given_to_one_whose_progress_it_has_moved",),
    ),
    Mutation(
        name="progress-lock",
        guard="of two workers with one chunk, the second waits for the first one's transaction",
        file="chassis/consuming/offsets.py",
        before=(
            "        ORDER BY progress.partition, progress.subscriber\n"
            "        FOR UPDATE OF progress\n"
        ),
        after="        ORDER BY progress.partition, progress.subscriber\n",
        proven_by=(f"{_PROGRESS}test_two_that_keep_the_records_of_one_chunk_at_once_do_it_once",),
    ),
    Mutation(
        name="inbox-lock",
        guard="an aggregate's events are handled or released by one transaction at a time",
        file="chassis/consuming/inbox.py",
        before="    return {\n        subject: None if last is None else Seen(",
        after=(
            "    counted = counted.all()\n"
            '    await connection._driver.execute("COMMIT")\n'
            '    await connection._driver.execute("BEGIN")\n'
            "    return {\n        subject: None if last is None else Seen("
        ),
        proven_by=(
            f"{_INBOX_LOCK}test_two_that_meet_a_new_subject_see_one_another",
            f"{_INBOX_LOCK}test_what_was_released_while_we_waited_is_no_longer_in_the_way",
        ),
    ),
    Mutation(
        name="release-lock",
        guard="a release locks the inbox row of its subject before it reads the parked events",
        file="chassis/operations/release.py",
        before="        await lock_subject(connection, subscriber, topic, subject)\n",
        after="",
        proven_by=(
            f"{_RELEASE}test_two_operators_handle_once",
            f"{_RELEASE}test_a_live_event_waits_while_its_subject_is_released",
        ),
    ),
    Mutation(
        name="repeats-dropped",
        guard="an event that was published twice is dropped by its sequence",
        file="chassis/consuming/subscribers.py",
        before="""        if verdict is Verdict.REPEAT:
            return self._count(verdict, Outcome.DROPPED)
""",
        after="",
        proven_by=(f"{_SEEN}test_a_repeat_is_dropped",),
    ),
    Mutation(
        name="fork-check",
        guard="a newer event with a sequence already seen is parked as a forked history",
        file="chassis/consuming/inbox.py",
        before="Verdict.FORKED if event_id > self.greatest_id else Verdict.REPEAT",
        after="Verdict.REPEAT",
        proven_by=(f"{_SEEN}test_one_of_a_forked_history_is_parked_and_what_follows_it_waits",),
    ),
    Mutation(
        name="gaps-noted",
        guard="a jump in an aggregate's sequence is recorded with every missing number",
        file="chassis/consuming/inbox.py",
        before="self.gaps.open(expected, sequence - 1)",
        after="pass",
        proven_by=(f"{_SEEN}test_a_gap_is_recorded_and_the_event_handled",),
    ),
    Mutation(
        name="park-behind",
        guard="later events of an aggregate that has a parked event are parked behind it",
        file="chassis/consuming/inbox.py",
        before="if self.parked and verdict not in (Verdict.REPEAT, Verdict.FORKED):",
        after="if False:",
        proven_by=(f"{_FAILS}test_stops_the_later_ones_of_its_subject_only",),
    ),
    Mutation(
        name="one-by-one",
        guard="a chunk that fails is handled event by event, so only the failing event is parked",
        file="chassis/consuming/single_events.py",
        before=" if attempt.count > MOST_TRIES else None\n",
        after=" if attempt.count > 0 else None\n",
        proven_by=(f"{_FAILS}test_for_good_is_parked_at_once_and_the_rest_is_handled",),
    ),
    Mutation(
        name="tries-before-handling",
        guard="an attempt is counted before it begins, so one that kills its worker counts too",
        file="chassis/consuming/attempts.py",
        before="self._database.begin() as connection:\n            count, first_at",
        after="self._database.begin_rolled_back() as connection:\n            count, first_at",
        proven_by=(f"{_DEADLY}test_is_parked_after_some_deaths_and_others_are_handled",),
    ),
    Mutation(
        name="one-suspect-at-a-time",
        guard="suspect events are tried one at a time, so that a crash counts against one of them",
        file="chassis/consuming/single_events.py",
        before="async with self._suspects if in_progress.is_suspect else nullcontext():",
        after="async with nullcontext():",
        proven_by=(
            f"{_BATCHES}TestAnEventThatKillsItsProcess::test_is_parked_and_no_event_that_was_handled_beside_it",
        ),
    ),
    Mutation(
        name="ours-to-commit",
        guard="a chunk that this worker has lost is left out when its batch is committed",
        file="chassis/consuming/group_commit.py",
        before="ours = [each for each in batch if each.in_progress.is_ours()]",
        after="ours = batch",
        proven_by=(
            f"{_BATCHES}TestChunksThatWait::test_leave_one_out_that_is_no_longer_ours",
            f"{_UNIT_BATCHES}TestSmallChunks::test_one_that_is_no_longer_ours_is_left_out",
        ),
    ),
    Mutation(
        name="batch-by-itself",
        guard="when a batch fails, each of its chunks is committed by itself",
        file="chassis/consuming/group_commit.py",
        before="                error = _BatchFailed()\n",
        after="                error = None\n",
        proven_by=(f"{_BATCHES}TestChunksThatWait::test_do_not_suffer_from_one_that_fails",),
    ),
    Mutation(
        name="batch-outlives-one",
        guard="a cancelled chunk leaves the other chunks of its batch to be committed",
        file="chassis/consuming/group_commit.py",
        before="            and all(each.outcome.cancelled() for each in self._batch)\n",
        after="",
        proven_by=(
            f"{_UNIT_BATCHES}TestOneThatIsCancelled::test_leaves_the_rest_of_its_batch_to_be_committed",
        ),
    ),
    Mutation(
        name="batch-awaited",
        guard="when all chunks of a batch are cancelled, the last one waits for its rollback",
        file="chassis/consuming/group_commit.py",
        before="            await asyncio.wait([committing])\n",
        after="",
        proven_by=(
            f"{_UNIT_BATCHES}TestOneThatIsCancelled::test_as_the_last_of_its_batch_ends_when_that_is_rolled_back",
        ),
    ),
    Mutation(
        name="slow-topic-alone",
        guard="a chunk of a topic that lately took long skips the batch, and is handled once",
        file="chassis/consuming/group_commit.py",
        before="if not in_progress.by_itself and not self._is_slow(commit):",
        after="if not in_progress.by_itself:",
        proven_by=(
            f"{_UNIT_BATCHES}TestAChunkThatTakesLong::test_has_the_next_of_its_topic_skip_the_batch_so_that_it_is_handled_once",
        ),
    ),
    Mutation(
        name="mass-failure",
        guard="when many aggregates would park with one error, the consumer stops and none parks",
        file="chassis/consuming/dead_letter_limit.py",
        before="            if len(together) > self._most:\n",
        after="            if False:\n",
        proven_by=(
            f"{_MANY_FAIL}test_with_one_error_stop_the_consumer_before_the_first_is_parked",
            "tests/unit/chassis/consuming/test_dead_letter_limit.py::TestTheLimit::test_is_many_subjects_with_one_error",
        ),
    ),
    Mutation(
        name="rehearsal",
        guard="a chunk is rehearsed before its first event parks, so one over the limit parks none",
        file="chassis/consuming/single_events.py",
        before="            await self._rehearse(in_progress, found)\n",
        after="",
        proven_by=(
            f"{_MANY_FAIL}test_with_one_error_stop_the_consumer_before_the_first_is_parked",
        ),
    ),
    Mutation(
        name="rolled-back-not-counted",
        guard="an aggregate whose transaction was rolled back does not count as parked",
        file="chassis/consuming/dead_letter_limit.py",
        before="                self._parked_at[each.code].pop(each.subject, None)\n",
        after="                pass\n",
        proven_by=(
            "tests/unit/chassis/consuming/test_dead_letter_limit.py::TestTheLimit::test_counts_nothing_that_was_rolled_back",
        ),
    ),
    Mutation(
        name="park-allowance",
        guard="what an operator allowed to park is parked, and the consumer goes on behind it",
        file="chassis/consuming/dead_letter_limit.py",
        before="each.offset >= self._allowed_below.get(each.partition, 0)",
        after="each",
        proven_by=(f"{_MANY_FAIL}test_are_parked_once_an_operator_allows_it",),
    ),
    Mutation(
        name="allowance-ends-the-stop",
        guard="an allowance ends the consumer's stop, whatever is the first to read it",
        file="chassis/consuming/processor.py",
        before="        if is_new and self._halted is not None:\n",
        after="        if False:\n",
        proven_by=(f"{_MANY_FAIL}test_are_parked_when_a_rebalance_is_what_reads_the_allowance",),
    ),
    Mutation(
        name="contention-never-parks",
        guard="an event is not parked because other transactions were in its way",
        file="chassis/consuming/retry_policy.py",
        before="    if isinstance(error, StaleAggregate) or is_conflict(error):\n",
        after="    if (isinstance(error, StaleAggregate) or is_conflict(error)) and times <= 20:\n",
        proven_by=(f"{_CONTENTION}test_is_retried_without_limit_and_not_counted_as_attempts",),
    ),
    Mutation(
        name="stale-in-one-version",
        guard="an aggregate that is stale in an unchanged version is an unknown failure",
        file="chassis/consuming/retry_policy.py",
        before="            if error.versions.items() & self._stale.items():\n",
        after="            if False:\n",
        proven_by=(
            "tests/unit/chassis/consuming/test_retry_policy.py::TestFailures::test_an_aggregate_that_is_stale_in_the_version_of_the_last_try_is_not",
        ),
    ),
    Mutation(
        name="subscribers-apart",
        guard="a subscriber that waits between its tries does not delay the others of its chunk",
        file="chassis/consuming/single_events.py",
        before="    tasks = [asyncio.create_task(each) for each in work]\n",
        after=(
            "    tasks = []\n"
            "    for each in work:\n"
            "        tasks.append(asyncio.create_task(each))\n"
            "        await asyncio.wait(tasks)\n"
        ),
        proven_by=(f"{_SLOW}test_does_not_delay_another_between_its_tries",),
    ),
    Mutation(
        name="far-behind-by-itself",
        guard="a subscriber that is far behind the others of its topic does not delay them",
        file="chassis/consuming/far_behind.py",
        before="if first - offset > self.events}",
        after="if first - offset > 1_000_000}",
        proven_by=(f"{_REPLAY}TestWhileOneReplays::test_the_others_handle_new_events_at_once",),
    ),
    Mutation(
        name="replayed-attempts",
        guard="an attempt at a replay's chunk is not forgotten by progress that lies beyond it",
        file="chassis/consuming/worker.py",
        before="            chunks_counted_for=name,\n",
        after="",
        proven_by=(f"{_REPLAY}TestAReplayBegins::test_with_an_attempt_of_its_subscriber",),
    ),
    Mutation(
        name="two-replays-at-a-time",
        guard="no more than two replays of a process read at a time",
        file="chassis/consuming/replay.py",
        before="_AT_ONCE: Final = 2\n",
        after="_AT_ONCE: Final = 20\n",
        proven_by=(f"{_REPLAY}TestWhileOneReplays::test_no_more_than_two_read_at_a_time",),
    ),
    Mutation(
        name="replays-at-a-rate",
        guard="the replays of a process handle events at a bounded rate",
        file="chassis/consuming/replay.py",
        before="            await self._pause(self._pace.pause_s(len(chunk.records)))\n",
        after="",
        proven_by=(f"{_REPLAY}TestWhileOneReplays::test_the_others_handle_new_events_at_once",),
    ),
)

_OF_TIMERS: Final = (
    Mutation(
        name="timer-with-effects",
        guard="a timer is deleted in the transaction of its effects",
        file="chassis/timers/due_timers.py",
        before="            gone = await connection.execute(_HANDLED, _claim_of(claimed))\n",
        after=_COMMIT_MIDWAY
        + "            gone = await connection.execute(_HANDLED, _claim_of(claimed))\n",
        proven_by=(
            f"{_TIMERS}TestSeveralWorkers::test_one_that_wakes_after_its_lease_changes_nothing",
            f"{_TIMERS}TestCancelling::test_one_that_is_handled_rolls_its_effects_back",
        ),
    ),
    Mutation(
        name="timer-row-changed",
        guard="whoever adds, cancels or handles a timer locks its aggregate's row first",
        file="chassis/timers/postgres_timers.py",
        before="first = await self._connection.scalar(_LOCK, ",
        after="first = await self._connection.scalar(select(_n.timer_id)"
        ".where(_n.subject == _of_subject), ",
        proven_by=(
            f"{_TIMERS}TestCancelling::test_one_whose_effects_are_committed_first_answers_no",
        ),
    ),
    Mutation(
        name="timer-stays-first",
        guard="a timer that has failed is not overtaken by one of its aggregate that has an earlier"
        " time",
        file="chassis/timers/postgres_timers.py",
        before="_n.error_code.is_(None), ",
        after="",
        proven_by=(
            f"{_TIMERS}TestATimerThatFails::test_and_waits_is_not_tried_before_its_pause_though_another_is_scheduled",
        ),
    ),
    Mutation(
        name="timer-tries-counted",
        guard="a claim counts the attempt at its timer, so one that kills its worker counts too",
        file="chassis/timers/due_timers.py",
        before="        tries=_n.tries + 1,\n",
        after="",
        proven_by=(
            _DEADLY_TIMER,
            f"{_TIMERS}TestATimerThatFails::test_for_an_unknown_reason_is_tried_some_times_with_pauses",
        ),
    ),
    Mutation(
        name="timer-suspect-alone",
        guard="of timers that a worker may have died of, one is claimed at a time",
        file="chassis/timers/due_timers.py",
        before="_n.begun, most=literal(1), ",
        after="_n.begun, most=literal(20), ",
        proven_by=(_DEADLY_TIMER,),
    ),
    Mutation(
        name="timer-not-to-blame",
        guard="an attempt that ended for a reason outside of its timer does not count against it",
        file="chassis/timers/worker.py",
        before="counts = not cause.is_transient",
        after="counts = True",
        proven_by=(
            f"{_TIMERS}TestATimerThatFails::test_for_a_reason_outside_of_it_is_never_parked[dependency]",
        ),
    ),
    Mutation(
        name="timers-at-a-rate",
        guard="a worker begins timers at a bounded rate, however many are due",
        file="chassis/timers/worker.py",
        before="rest_s = len(claimed) / self._per_s - (time.monotonic() - began)",
        after="rest_s = 0.0",
        proven_by=(f"{_TIMERS}TestAPoll::test_takes_no_more_than_the_rate_allows",),
    ),
)

_OF_VERSIONS: Final = (
    Mutation(
        name="versions-named",
        guard="the versions of a fact are published together, and each names the others",
        file="chassis/persistence/outbox.py",
        before="versions=sequences if len(fact) > 1 else None,",
        after="versions=None,",
        proven_by=(
            "tests/unit/chassis/persistence/test_outbox.py::TestTheEventsOfAnAggregate::test_in_two_versions_are_adjacent_the_oldest_first_and_name_each_other",
        ),
    ),
    Mutation(
        name="other-version-passed-over",
        guard="a version that a subscriber has no handler for is passed over, and holds up nothing",
        file="chassis/consuming/versions.py",
        before="        return Choice.NO_VERSION\n",
        after="        return Choice.MISSED\n",
        proven_by=(
            f"{_VERSIONS}TestAVersionWithoutAHandler::test_is_passed_over_and_holds_up_nothing",
        ),
    ),
    Mutation(
        name="version-awaited",
        guard="a fact is left to its newest version with a handler while that is still to come",
        file="chassis/consuming/versions.py",
        before="        return Choice.LATER\n",
        after="        pass\n",
        proven_by=(
            f"{_VERSIONS}TestAFactInTwoVersions::test_is_handled_once_in_the_newest_that_has_a_handler[one-chunk-V2]",
            f"{_VERSIONS}TestAFactInTwoVersions::test_is_handled_once_in_the_newest_that_has_a_handler[one-chunk-both]",
        ),
    ),
    Mutation(
        name="fact-handled-once",
        guard="a fact that was handled in one version is not handled again in another",
        file="chassis/consuming/versions.py",
        before=(
            "    if not seen.handled.isdisjoint(others.values()):\n        return Choice.HANDLED\n"
        ),
        after="",
        proven_by=(
            f"{_VERSIONS}TestAFactInTwoVersions::test_that_v1_was_handled_of_is_not_handled_again_as_v2",
            f"{_RELEASED_VERSIONS}TestWhateverHappens::test_while_the_reader_is_moved_each_fact_is_handled_once",
        ),
    ),
    Mutation(
        name="handled-facts-kept",
        guard="a handled fact is stored with its effects, until its last version has come",
        file="chassis/consuming/inbox.py",
        before="        await self._flush_handled(connection)\n",
        after="",
        proven_by=(
            f"{_VERSIONS}TestAFactInTwoVersions::test_that_v1_was_handled_of_is_not_handled_again_as_v2",
        ),
    ),
    Mutation(
        name="missing-version-to-come",
        guard="a version of a fact that is missing is still to come",
        file="chassis/consuming/inbox.py",
        before=" or sequence in self.gaps or ",
        after=" or ",
        proven_by=(
            f"{_VERSIONS}TestAFactInTwoVersionsThatComesLate::test_one_version_before_and_one_after_the_move_is_not_handled_again",
        ),
    ),
    Mutation(
        name="parked-version-to-come",
        guard="a version of a fact that is parked is still to come",
        file="chassis/consuming/inbox.py",
        before=" or sequence in self.parked_versions\n",
        after="\n",
        proven_by=(
            f"{_RELEASED_VERSIONS}TestReleasing::test_the_versions_before_and_after_the_move_handles_the_fact_once",
            f"{_RELEASED_VERSIONS}TestApplying::test_a_later_fact_first_does_not_handle_it_again_in_its_other_version",
        ),
    ),
    Mutation(
        name="missed-version-parked",
        guard="a fact that would be missed, because its reader was changed between two of its"
        " versions, is parked",
        file="chassis/consuming/versions.py",
        before="    return Choice.MISSED\n",
        after="    return Choice.NO_VERSION\n",
        proven_by=(
            f"{_VERSIONS}TestAFactInTwoVersions::test_that_began_before_the_reader_was_moved_back_is_parked_not_missed",
            f"{_RELEASED_VERSIONS}TestWhateverHappens::test_no_fact_is_handled_twice_or_missed_in_silence",
        ),
    ),
)

_RUNNING: Final = (
    Mutation(
        name="verified-server",
        guard="every part connects as the URL says, so a server that can't be verified is refused",
        file="chassis/persistence/connecting.py",
        before="                server,\n",
        after='                server.replace("verify-full", "require"),\n',
        proven_by=(
            f"{_CHASSIS}/persistence/test_connecting.py::TestOverTls::test_no_place_accepts_another_authority_or_host_or_an_open_connection",
        ),
    ),
    Mutation(
        name="either-secret",
        guard="while a secret is changed, a repeat is recognised under both of its values",
        file="chassis/web/idempotency.py",
        before="each) for each in self._fingerprints)",
        after="each) for each in self._fingerprints[:1])",
        proven_by=(
            "tests/unit/chassis/web/test_idempotency.py::TestAnIdempotentCommand::test_is_recognised_at_each_step_in_which_the_secret_is_changed",
        ),
    ),
    Mutation(
        name="kept-out-of-one-network",
        guard="wrong passwords keep a name out of the network that they come from, and no other",
        file="users_service/application/sign_in.py",
        before='f"{who} from {network.name}"',
        after='f"{who} from anywhere"',
        proven_by=(
            f"{_SIGN_IN}test_a_name_over_its_limit_in_a_network_is_refused_there_and_nowhere_else",
        ),
    ),
    Mutation(
        name="guesses-everywhere",
        guard=("from all networks together a name's password is guessed a limited number of times"),
        file="users_service/application/sign_in.py",
        before="is_over = attempts.count > self._limits.per_name_everywhere",
        after="is_over = False",
        proven_by=(
            f"{_SIGN_IN}test_a_name_over_its_limit_of_all_networks_is_refused_in_another",
            f"{_SIGN_IN}test_a_network_is_forgotten_after_a_while",
        ),
    ),
    Mutation(
        name="known-network",
        guard="where a name signed in lately, guesses from other networks do not keep it out",
        file="users_service/application/sign_in.py",
        before="if is_over and not await self._known_networks.has(who, network.name, now=now):",
        after="if is_over:",
        proven_by=(f"{_SIGN_IN}test_but_not_in_one_from_which_it_signed_in_lately",),
    ),
    Mutation(
        name="both-names-one",
        guard="a user's name and address together allow no more guesses than one of them",
        file="users_service/application/sign_in.py",
        before='who = _user(credentials) if credentials else f"name {login.value}"',
        after='who = f"name {login.value}"',
        proven_by=(f"{_SIGN_IN}test_a_username_and_its_email_address_count_as_one",),
    ),
    Mutation(
        name="sign-ups-counted",
        guard="the sign-ups from one network are limited",
        file="users_service/application/sign_up.py",
        before="        if counted.count > self.per_network.of(network):\n",
        after="        if counted.count < 0:\n",
        proven_by=(
            f"{_USERS_HTTP}TestTooManySignUps::test_from_one_network_are_refused_whatever_became_of_those_before",
        ),
    ),
    Mutation(
        name="late-hash-dropped",
        guard="a password hash that has waited for longer than its client does is not begun",
        file="users_service/adapters/argon2_hasher.py",
        before="            if self._monotonic() - asked_at > self._wait_s:\n",
        after="            if self._monotonic() < asked_at:\n",
        proven_by=(
            "tests/unit/users_service/test_argon2_hasher.py::TestArgon2Hasher::test_what_has_waited_for_too_long_is_not_begun",
        ),
    ),
    Mutation(
        name="gone-not-begun",
        guard="a password is not hashed for a client that left while it waited",
        file="chassis/web/disconnects.py",
        before="{working, gone}, return_when=asyncio.FIRST_COMPLETED",
        after="{working}",
        proven_by=(
            f"{_USERS_HTTP}TestAClientThatLeaves::test_has_the_password_not_hashed_that_waits_for_its_turn",
        ),
    ),
    Mutation(
        name="not-guessed-first",
        guard="a new password is none of the most common ones",
        file="users_service/domain/values.py",
        before="        if folded in common_passwords():\n",
        after="        if not folded:\n",
        proven_by=(f"{_PASSWORDS}test_one_of_the_most_common_is_refused_in_any_case",),
    ),
    Mutation(
        name="not-known-to-others",
        guard="a new password is neither its user's name nor their address",
        file="users_service/domain/values.py",
        before="        if folded in known:\n",
        after="        if not folded:\n",
        proven_by=(f"{_PASSWORDS}test_the_name_and_the_address_of_its_user_are_refused",),
    ),
    Mutation(
        name="keys-confirmed",
        guard="keys that nobody has confirmed for as long as a token is valid verify no token",
        file="chassis/web/auth.py",
        before="return self._keys if unconfirmed_s <= self._lifetime_s else None",
        after="return self._keys",
        proven_by=(
            f"{_ACCESS_KEYS}test_are_not_believed_for_longer_than_a_token_is_valid_while_nobody_confirms_them",
        ),
    ),
    Mutation(
        name="keys-withdrawn",
        guard="an issuer that publishes no keys has withdrawn all of them",
        file="chassis/web/auth.py",
        before='KeySet.import_key_set({"keys": keys}) if keys else None',
        after='KeySet.import_key_set({"keys": keys})',
        proven_by=(f"{_ACCESS_KEYS}test_when_all_are_left_out_no_token_is_verified",),
    ),
    Mutation(
        name="keys-with-what-was-sent",
        guard="without a token another body under the same Idempotency-Key is another request",
        file="chassis/web/idempotency.py",
        before='f"{each.hex()} {idempotency_key}"',
        after='f"{idempotency_key}"',
        proven_by=(
            "tests/unit/chassis/web/test_idempotency.py::TestAnIdempotentCommand::test_without_a_token_another_body_is_another_request_so_nobody_takes_a_key_first",
        ),
    ),
    Mutation(
        name="bulk-tried-once",
        guard="of many that are released together, one that fails again is tried once",
        file="chassis/operations/release_together.py",
        before=".where(parked.c.last_tried_at < before)",
        after="",
        proven_by=(
            f"{_CHASSIS}/operations/test_release_together.py::test_goes_on_without_those_that_have_failed_again",
        ),
    ),
    Mutation(
        name="accepted-bytes-only",
        guard="what an operator accepted as no event explains those bytes at that place only",
        file="verification/invariants.py",
        before="tolerated.place = published.place AND tolerated.sha256 = published.sha256",
        after="tolerated.place = published.place",
        proven_by=(
            "tests/unit/verification/test_checking.py::TestARecordThatIsNoEvent::test_is_not_explained_by_other_bytes",
        ),
    ),
    Mutation(
        name="entries-add-up",
        guard="a transaction whose entries do not add up to zero is refused by the database",
        file="accounts_service/migrations/versions/accounts_0005_entries_at_once.py",
        before="HAVING sum(entry.delta) <> 0 OR count(DISTINCT accounts.currency) <> 1"
        "\n                    OR",
        after="HAVING count(DISTINCT accounts.currency) <> 1 OR",
        proven_by=(
            "tests/integration/accounts_service/test_ledger.py::TestTransactions::test_the_entries_of_a_transaction_add_up_to_zero",
        ),
    ),
    Mutation(
        name="entries-at-once",
        guard="nothing is added to a transaction that is there",
        file="accounts_service/migrations/versions/accounts_0005_entries_at_once.py",
        before="\n                    OR count(*) <> moved.entries",
        after="",
        proven_by=(
            "tests/integration/accounts_service/test_ledger.py::TestTransactions::test_a_transaction_is_whole_from_the_start",
        ),
    ),
    Mutation(
        name="money-is-there",
        guard="no more goes out of an account than is free in it",
        file="accounts_service/domain/account.py",
        before="if self.available < amount.minor_units:",
        after="if False:",
        proven_by=(
            "tests/integration/accounts_service/test_money.py::TestAtOnce::test_withdrawals_take_no_more_than_there_is",
        ),
    ),
    Mutation(
        name="reversed-once",
        guard="a transfer that was reversed is not reversed again",
        file="accounts_service/application/transfer.py",
        before="        if earlier is not None:\n            raise AlreadyReversed(earlier)\n",
        after="",
        proven_by=(
            "tests/integration/accounts_service/test_money.py::TestAtOnce::test_reversals_of_one_transfer_move_money_once",
        ),
    ),
    Mutation(
        name="accounts-time",
        guard="the time of what happens to an account never goes back",
        file="accounts_service/domain/account.py",
        before="self.moved_at = max(self.moved_at, now)",
        after="self.moved_at = now",
        proven_by=(
            "tests/unit/accounts_service/test_account.py::TestTimes::test_no_event_is_earlier_than_the_one_before_it",
        ),
    ),
    Mutation(
        name="dry-run-as-meant",
        guard="a command with a misspelt dry_run is refused, not carried out",
        file="chassis/web/dry_run.py",
        before="        _refuse_other_parameters(request)\n",
        after="",
        proven_by=(
            "tests/unit/accounts_service/test_commands_over_http.py::TestDryRuns::test_a_dry_run_that_is_misspelt_moves_nothing",
        ),
    ),
    Mutation(
        name="published-sides",
        guard="what is published of the two sides of a transaction adds up to zero",
        file="verification/invariants.py",
        before="HAVING count(*) <> 2 OR sum(delta) <> 0",
        after="HAVING count(*) > 2",
        proven_by=(
            "tests/unit/verification/test_checking.py::TestPublishedMoney::test_of_a_transfer_with_one_side_is_seen",
        ),
    ),
    Mutation(
        name="published-balances",
        guard="what is published of an account makes the balance in its row",
        file="verification/invariants.py",
        before="HAVING balance <> coalesce(sum(delta), 0) OR last_position",
        after="HAVING last_position",
        proven_by=(
            "tests/unit/verification/test_checking.py::TestPublishedMoney::test_with_another_balance_than_its_row_is_seen",
        ),
    ),
    Mutation(
        name="waiting-is-reported",
        guard="what waits for an operator is a reason that readiness gives",
        file="chassis/process/service.py",
        before="        self._health.add(waiting.name, waiting.trouble, gates=False)\n",
        after="",
        proven_by=(
            "tests/integration/accounts_service/test_service.py::TestReadiness::test_names_what_waits_for_an_operator_and_stays_ready",
        ),
    ),
    Mutation(
        name="parked-is-logged",
        guard="each event that is parked has a line in the log",
        file="chassis/consuming/dead_letters.py",
        before="lines += [{name: each[name] for name in _IN_LOG} for each in rows]\n",
        after="pass\n",
        proven_by=(
            f"{_CHASSIS}/operations/test_waiting.py::TestTheLog::test_has_one_line_for_each_parked_event_and_none_for_what_is_rolled_back",
        ),
    ),
    Mutation(
        name="schema-version",
        guard="a process whose code needs a newer schema is not ready, and says so",
        file="chassis/persistence/schema_version.py",
        before="        if len(lacking) <= len(newer):\n",
        after="        if lacking:\n",
        proven_by=(
            f"{_CHASSIS}/test_schema_version.py::TestASchema::test_is_older_until_it_is_migrated",
        ),
    ),
    Mutation(
        name="migration-lock-timeout",
        guard="a migration gives up a lock before commands queue behind it for long",
        file="chassis/migrations/env.py",
        before="    connection.execute(text(f\"SET lock_timeout = '{LOCK_TIMEOUT_S}s'\"))\n",
        after="",
        proven_by=(
            f"{_CHASSIS}/test_migrations.py::TestALockedTable::test_is_waited_for_only_briefly_and_nothing_is_changed",
        ),
    ),
    Mutation(
        name="outbox-age-limit",
        guard="no command adds to an outbox whose events have waited for longer than allowed",
        file="chassis/persistence/outbox_age.py",
        before="    def _refuse(self) -> None:\n        if self._is_too_old():\n",
        after="    def _refuse(self) -> None:\n        if False:\n",
        proven_by=(
            f"{_CHASSIS}/persistence/test_outbox_age.py::TestAnOutbox::test_that_is_too_old_refuses_commands_that_publish_until_it_is_not",
        ),
    ),
)

_NUMBERS: Final = "tests/integration/audit_service/test_numbers.py::TestNumbers::"
_OF_AUDIT: Final = (
    Mutation(
        name="numbers-of-late-commits",
        guard="a record gets its number also when it commits after one with a higher position",
        file="audit_service/numbers.py",
        before="before.numbered_to if writers & set(before.writers) else before.seen_to",
        after="before.seen_to",
        proven_by=(
            f"{_NUMBERS}test_are_given_to_a_record_that_commits_after_one_with_a_higher_position",
        ),
    ),
    Mutation(
        name="numbers-by-one",
        guard="one process at a time numbers the records of audit",
        file="audit_service/numbers.py",
        before="            if not await connection.scalar(_TRY_LOCK):\n                return 0\n",
        after="",
        proven_by=(f"{_NUMBERS}test_are_given_by_one_process_at_a_time",),
    ),
    Mutation(
        name="numbers-stay",
        guard="the number of a record is never changed or removed",
        file="audit_service/migrations/versions/audit_0002_numbers.py",
        before="BEFORE UPDATE OR DELETE OR TRUNCATE ON record_numbers",
        after="BEFORE UPDATE OF position ON record_numbers",
        proven_by=(
            "tests/integration/audit_service/test_migrations.py::TestARecord::test_keeps_its_number",
        ),
    ),
)

MUTATIONS: Final = (
    *_COMMANDS,
    *_PUBLISHING,
    *_FETCHING,
    *_PROCESSING,
    *_OF_VERSIONS,
    *_OF_TIMERS,
    *_OF_AUDIT,
    *_RUNNING,
    *AT_THE_EDGE,
    *NOTIFYING,
    *READING,
)
