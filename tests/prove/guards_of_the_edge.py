"""The guards that keep one client from stopping others (``docs/guarantees.md``)."""

from typing import Final

from tests.prove.mutation import Mutation

_UNIT: Final = "tests/unit/chassis/web/test_connections.py::"
_SECURITY_LOG: Final = "tests/unit/chassis/web/test_auth.py::TestTheSecurityLog::"
_READS: Final = "tests/unit/chassis/web/test_auth.py::TestWhatAnOperatorReads::"
_ASKED_FOR: Final = f"{_SECURITY_LOG}test_has_a_line_for_what_an_operator_asks_for_"
_SIGN_IN_LOG: Final = "tests/unit/users_service/test_http.py::TestTheSecurityLog::"
_IN_PARTS: Final = "tests/unit/users_service/test_http.py::TestABodyInParts::"
_LATE_BODY: Final = f"{_UNIT}TestAConnectionThatAsksNoMore::"
_AT_ONCE: Final = "tests/unit/users_service/test_sign_in.py::TestSignInsAtOnce::test_"
_APP: Final = "tests/unit/chassis/web/test_app.py::"
_TRACES: Final = "tests/unit/chassis/test_telemetry.py::TestRequests::"
_PROCESS: Final = "tests/integration/chassis/process/test_run.py::TestRunning::"
_PAYLOADS: Final = "tests/unit/chassis/operations/test_payloads.py::"
_OPERATIONS: Final = "tests/integration/chassis/operations/"
_FAILURES: Final = "tests/integration/gateway/test_failures.py::"

_ACLS: Final = "tests/contract/test_acls.py::"
_STREAM: Final = "tests/unit/chassis/web/test_event_stream.py::"

_EVENT_STREAMS: Final = (
    Mutation(
        name="stream-read-in-time",
        guard="a stream whose client does not receive what was sent is cut off",
        file="chassis/web/event_stream.py",
        before=(
            "                async with asyncio.timeout(self._bounds.send_timeout_s):\n"
            '                    await send({"type": "http.response.body", "body": body'
        ),
        after=(
            "                async with asyncio.timeout(None):\n"
            '                    await send({"type": "http.response.body", "body": body'
        ),
        proven_by=(
            f"{_STREAM}TestAStream::test_of_a_client_that_does_not_read_is_cut_off_and_nothing_more_is_taken_for_it",
        ),
    ),
    Mutation(
        name="stream-ends-with-token",
        guard="a stream ends when its token is no longer valid",
        file="chassis/web/event_stream.py",
        before="timeout=self._ends_in_s()",
        after="timeout=None",
        proven_by=(f"{_STREAM}TestAStream::test_ends_with_the_token",),
    ),
    Mutation(
        name="stream-ends-at-stop",
        guard="a process that stops ends its streams",
        file="chassis/web/event_stream.py",
        before="        tasks = {sending, leaving, stopping}\n",
        after="        tasks = {sending, leaving}\n",
        proven_by=(f"{_STREAM}TestAStream::test_ends_when_the_process_stops",),
    ),
    Mutation(
        name="streams-of-a-user",
        guard="one user has a part of the streams at most",
        file="chassis/web/event_stream.py",
        before="if self._open[user_id] >= self._per_user:",
        after="if False:",
        proven_by=(f"{_STREAM}TestPlaces::test_a_user_has_a_share_of_them",),
    ),
)

_CONNECTIONS: Final = (
    Mutation(
        name="head-in-time",
        guard="a connection whose client has not sent a whole head in time is closed",
        file="chassis/web/connections.py",
        before="            waits.append((Closed.HEAD_TOO_SLOW, self.conn.heads))\n",
        after="            pass\n",
        proven_by=(
            f"{_UNIT}TestTheHead::test_has_its_time_from_the_moment_of_connecting",
            f"{_UNIT}TestTheHead::test_has_no_more_time_for_coming_byte_by_byte",
        ),
    ),
    Mutation(
        name="answer-read-in-time",
        guard="a connection whose client does not read its answer is ended",
        file="chassis/web/connections.py",
        before="            waits.append((Closed.ANSWER_NOT_READ, self._drained))\n",
        after="            pass\n",
        proven_by=(f"{_UNIT}TestAnAnswer::test_that_its_client_does_not_read_is_given_up",),
    ),
    Mutation(
        name="connections-of-a-network",
        guard="one network has a part of the connections at most",
        file="chassis/web/connections.py",
        before="            raise Refused(Closed.TOO_MANY_OF_NETWORK)\n",
        after="            pass\n",
        proven_by=(
            f"{_UNIT}TestTheBounds::test_one_more_of_a_network_is_refused_and_others_are_not",
        ),
    ),
    Mutation(
        name="lines-end-with-crlf",
        guard="a request with a line that ends with LF alone is refused",
        file="chassis/web/request_parser.py",
        before='            raise h11.LocalProtocolError("a line ends with LF alone")\n',
        after="            pass\n",
        proven_by=(
            f"{_UNIT}TestAMalformedRequest::test_is_one_with_a_line_that_ends_with_lf_alone",
        ),
    ),
    Mutation(
        name="one-framing",
        guard="after a request with two framings its connection is closed",
        file="chassis/web/request_parser.py",
        before='[*others, (b"connection", b"close")]',
        after="others",
        proven_by=(
            f"{_UNIT}TestFraming::test_a_length_beside_a_transfer_coding_is_ignored_and_the_connection_closed",
        ),
    ),
)

_GATEWAY: Final = (
    Mutation(
        name="body-before-a-place",
        guard="a request's body is complete before the request takes a place at its service",
        file="gateway/forward.py",
        before="            body = await whole_body(receive)\n",
        after="            async with self._upstream._place(None):\n"
        "                body = await whole_body(receive)\n",
        proven_by=(
            f"{_FAILURES}TestASlowClient::test_that_does_not_send_its_body_takes_no_place_at_the_service",
        ),
    ),
    Mutation(
        name="share-of-a-network",
        guard="one network has a part of the places at a service at most",
        file="gateway/upstream.py",
        before="                        await held.enter_async_context(share)\n",
        after="",
        proven_by=(
            f"{_FAILURES}TestANetwork::test_that_has_its_share_in_use_is_refused_and_others_are_not",
        ),
    ),
)

_LISTENERS: Final = (
    Mutation(
        name="no-body-in-parts",
        guard="no body is decoded in a way that its client chooses",
        file="chassis/web/app.py",
        before="        if self._in_parts:\n",
        after="        if False:\n",
        proven_by=(f"{_IN_PARTS}test_is_refused_before_it_is_decoded_as_its_client_says",),
    ),
    Mutation(
        name="asks-no-more",
        guard="a connection is closed whose last body came after its answer",
        file="chassis/web/connections.py",
        before="            self.timeout_keep_alive_task is None or self.conn.has_unparsed\n",
        after="            not self.conn.heads or self.conn.has_unparsed\n",
        proven_by=(f"{_LATE_BODY}test_is_closed_although_its_last_body_came_after_the_answer",),
    ),
    Mutation(
        name="sign-ins-at-once",
        guard="one network has a part of the places for passwords at most, right ones too",
        file="users_service/application/sign_in.py",
        before="        if self._verifying[network.name] >= self._limits.at_once.of(network):\n",
        after="        if False:\n",
        proven_by=(
            f"{_AT_ONCE}of_one_network_have_a_part_of_the_places_though_their_passwords_are_right",
        ),
    ),
    Mutation(
        name="own-correlation",
        guard="no client chooses the correlation id of its request",
        file="chassis/web/app.py",
        before="            client_id, id_ = id_, None\n",
        after="            client_id = id_\n",
        proven_by=(f"{_APP}TestIds::test_at_the_edge_a_client_has_its_id_beside_ours",),
    ),
    Mutation(
        name="own-trace",
        guard="no client continues its trace into ours",
        file="chassis/web/app.py",
        before="if name not in _OF_A_CLIENTS_TRACE]",
        after="]",
        proven_by=(f"{_TRACES}test_at_the_edge_a_request_begins_a_trace_and_links_to_the_clients",),
    ),
    Mutation(
        name="not-in-the-clear",
        guard="in production no process starts that would cross a network unprotected",
        file="chassis/process/run.py",
        before="    exit_if_in_the_clear(settings)\n",
        after="",
        proven_by=(f"{_PROCESS}test_in_production_it_does_not_serve_a_network_without_one",),
    ),
    Mutation(
        name="operators-listener",
        guard="the public listener has nothing that needs an operator",
        file="gateway/bootstrap.py",
        before="        routes=PUBLIC_ROUTES,\n",
        after="        routes=(*PUBLIC_ROUTES, *OPERATOR_ROUTES),\n",
        proven_by=(
            "tests/integration/gateway/test_forwarding.py::TestWhatIsNotPublic::test_is_not_found_however_it_is_written",
        ),
    ),
)

_OF_OPERATORS: Final = (
    Mutation(
        name="operators-logged",
        guard="what an operator asks for is in the security log",
        file="chassis/web/auth.py",
        before="            log_operator(request, caller.id)\n",
        after="            pass\n",
        proven_by=(f"{_ASKED_FOR}with_the_ids_that_are_named",),
    ),
    Mutation(
        name="reads-published",
        guard="what an operator reads of other people is published before they are answered",
        file="chassis/web/auth.py",
        before="        await record(caller.id, route_of(request), ids_in(request))\n",
        after="        pass\n",
        proven_by=(
            f"{_READS}test_of_others_is_recorded_with_ids_only",
            f"{_READS}test_is_not_answered_if_it_can_not_be_recorded",
        ),
    ),
    Mutation(
        name="reads-unless-said",
        guard="a query shows data of people unless it says that it does not",
        file="chassis/operations/acts.py",
        before="    of_people: bool = True\n",
        after="    of_people: bool = False\n",
        proven_by=(
            "tests/unit/chassis/operations/test_acts.py::TestReads::test_show_people_unless_it_is_said_that_they_do_not",
        ),
    ),
    Mutation(
        name="clients-id-apart",
        guard="what a client calls its request is in no envelope",
        file="chassis/persistence/outbox.py",
        before="            correlationid=context.correlation_id,\n",
        after="            correlationid=context.client_id or context.correlation_id,\n",
        proven_by=(
            "tests/unit/chassis/persistence/test_outbox.py::TestAppending::test_has_what_a_client_calls_its_request_beside_the_envelope",
        ),
    ),
    Mutation(
        name="clients-id-bounded",
        guard="audit keeps what a client calls its request only where it could be an id",
        file="audit_service/records.py",
        before='            return acceptable(value.decode("ascii", "replace"))\n',
        after='            return value.decode("ascii", "replace")\n',
        proven_by=(
            "tests/unit/audit_service/test_records.py::TestWhatAClientCallsItsRequest::test_is_not_kept_where_it_could_be_no_id",
        ),
    ),
    Mutation(
        name="refusals-logged",
        guard="what a token does not allow is in the security log",
        file="chassis/web/auth.py",
        before="            log_refused(request, refused.code)\n",
        after="            pass\n",
        proven_by=(f"{_SECURITY_LOG}test_has_a_line_for_what_a_token_does_not_allow",),
    ),
    Mutation(
        name="sign-ins-logged",
        guard="each attempt to sign in is in the security log, and no name",
        file="users_service/entrypoints/sign_in_log.py",
        before='            _log.warning("sign-in-refused", **line)\n',
        after="",
        proven_by=(f"{_SIGN_IN_LOG}test_tells_of_each_attempt_to_sign_in_and_names_nobody",),
    ),
    Mutation(
        name="security-log-at-any-level",
        guard="the security log is written whatever level the log has",
        file="chassis/telemetry.py",
        before="    logging.getLogger(SECURITY).setLevel(logging.INFO)\n",
        after="",
        proven_by=(
            "tests/unit/chassis/test_telemetry.py::TestLogging::test_the_security_log_is_written_at_any_level",
        ),
    ),
    Mutation(
        name="about-its-key",
        guard="in the place of an event whose subject is unknown nothing is put that is not about"
        " its record's key",
        file="chassis/operations/payloads.py",
        before="row.subject or _subject_in(row.key)",
        after='row.subject or str(payload.get("subject"))',
        proven_by=(
            f"{_PAYLOADS}TestOfAnEventWithoutASubject::test_and_about_another_subject_is_refused",
            f"{_PAYLOADS}TestOfAnEventWithoutASubject::test_and_without_a_key_that_could_be_one_is_refused",
        ),
    ),
    Mutation(
        name="data-about-it-too",
        guard="an edited event is about its subject in its data too",
        file="chassis/operations/payloads.py",
        before="    if name in data:\n",
        after="    if False:\n",
        proven_by=(
            f"{_PAYLOADS}TestDataAboutAnotherSubject::test_is_refused_in_place_of_a_parked_event",
            f"{_PAYLOADS}TestDataAboutAnotherSubject::test_is_refused_in_place_of_a_row_that_was_set_aside",
        ),
    ),
    Mutation(
        name="edit-has-its-bytes",
        guard="the event about an edit has the new bytes",
        file="chassis/operations/payloads.py",
        before='return {**fields, "payload": new.decode()}',
        after="return fields",
        proven_by=(
            f"{_OPERATIONS}test_dead_letters.py::TestEditing::test_puts_another_payload_in_its_place_and_keeps_the_original",
            f"{_OPERATIONS}test_outbox.py::TestEditing::test_keeps_the_original_payload_however_often",
        ),
    ),
    Mutation(
        name="large-edit-kept",
        guard="the bytes of an edit that are too large for its event are kept in the database",
        file="chassis/operations/payloads.py",
        before="await connection.execute(insert(edited_payloads).values(id=id_, payload=new))",
        after="pass",
        proven_by=(
            f"{_OPERATIONS}test_dead_letters.py::TestEditing::test_too_large_for_the_event_about_it_is_kept_in_the_database",
        ),
    ),
)

_AT_KAFKA: Final = (
    Mutation(
        name="own-topics-written",
        guard="a login may write to no topic but those that its service owns",
        file="contracts/acls.py",
        before="yield Acl(topic.owner, Resource.TOPIC, topic.name, Operation.WRITE)",
        after=(
            "for each in services:\n"
            "        yield Acl(each, Resource.TOPIC, topic.name, Operation.WRITE)"
        ),
        proven_by=(f"{_ACLS}test_a_topic_is_written_by_its_owner_alone",),
    ),
    Mutation(
        name="subscribed-topics-read",
        guard="a login may read no topic but those that its service subscribes to",
        file="contracts/acls.py",
        before="for consumer in topic.consumers:",
        after="for consumer in services:",
        proven_by=(
            f"{_ACLS}test_a_topic_is_read_by_its_consumers_and_the_verification_alone[users.task]",
        ),
    ),
    Mutation(
        name="own-group-joined",
        guard="a service's login may join no consumer group but the one of its name",
        file="contracts/acls.py",
        before="yield Acl(consumer, Resource.GROUP, consumer, Operation.READ)",
        after='yield Acl(consumer, Resource.GROUP, "*", Operation.READ)',
        proven_by=(f"{_ACLS}test_a_service_joins_its_own_group_alone",),
    ),
)

AT_THE_EDGE: Final = (
    *_CONNECTIONS,
    *_EVENT_STREAMS,
    *_GATEWAY,
    *_LISTENERS,
    *_OF_OPERATORS,
    *_AT_KAFKA,
)
