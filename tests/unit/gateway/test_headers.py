import dataclasses
from collections.abc import Callable

import pytest

from gateway.headers import Edge, Header, to_client, to_service

EDGE = Edge(
    client="203.0.113.7",
    scheme="https",
    host="onboarding.example",
    correlation_id="0190-correlation",
    client_correlation_id="order-17",
    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    secret="the-gateways-own",
)


Forward = Callable[[list[Header]], list[Header]]


def values(headers: list[Header], name: bytes) -> list[bytes]:
    return [value for each, value in headers if each == name]


class TestToService:
    def test_the_fields_of_the_client_are_forwarded(self) -> None:
        sent = [(b"Authorization", b"Bearer t"), (b"Idempotency-Key", b"k"), (b"Cookie", b"c=1")]

        forwarded = to_service(sent, EDGE)

        assert values(forwarded, b"authorization") == [b"Bearer t"]
        assert values(forwarded, b"idempotency-key") == [b"k"]
        assert values(forwarded, b"cookie") == [b"c=1"]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (b"X-Forwarded-For", [b"203.0.113.7"]),
            (b"X-Forwarded-Proto", [b"https"]),
            (b"X-Forwarded-Host", [b"onboarding.example"]),
            (b"X-Forwarded-Port", []),
            (b"X-Real-IP", []),
            (b"Forwarded", []),
            (b"X-Request-ID", [b"0190-correlation"]),
            (b"X-Correlation-ID", [b"0190-correlation"]),
            (b"Traceparent", [EDGE.traceparent.encode() if EDGE.traceparent else b""]),
            (b"X-Gateway-Secret", [b"the-gateways-own"]),
            (b"Tracestate", []),
            (b"Baggage", []),
            (b"X-Client-Correlation-ID", [b"order-17"]),
            (b"Host", []),
            (b"Expect", []),
        ],
    )
    def test_a_field_that_only_the_gateway_may_set_is_replaced(
        self, name: bytes, expected: list[bytes]
    ) -> None:
        forwarded = to_service([(name, b"forged"), (name.upper(), b"forged twice")], EDGE)

        assert values(forwarded, name.lower()) == expected

    def test_a_service_that_needs_no_secret_gets_none_even_if_a_client_sends_one(self) -> None:
        forwarded = to_service(
            [(b"X-Gateway-Secret", b"guess")], dataclasses.replace(EDGE, secret=None)
        )

        assert values(forwarded, b"x-gateway-secret") == []

    def test_the_gateway_adds_itself_to_via(self) -> None:
        forwarded = to_service([(b"Via", b"1.1 office")], EDGE)

        assert values(forwarded, b"via") == [b"1.1 office", b"1.1 gateway"]


@pytest.mark.parametrize("forward", [lambda headers: to_service(headers, EDGE), to_client])
class TestBothWays:
    @pytest.mark.parametrize(
        "name",
        [
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Proxy-Authorization",
            b"Proxy-Authenticate",
            b"TE",
            b"Trailer",
            b"Transfer-Encoding",
            b"Upgrade",
        ],
    )
    def test_a_field_for_one_hop_is_not_forwarded(self, forward: Forward, name: bytes) -> None:
        assert values(forward([(name, b"x")]), name.lower()) == []

    def test_a_field_that_connection_names_is_not_forwarded(self, forward: Forward) -> None:
        headers = [(b"Connection", b"close, X-Mine"), (b"X-Mine", b"1"), (b"X-Else", b"2")]

        assert values(forward(headers), b"x-mine") == []
        assert values(forward(headers), b"x-else") == [b"2"]

    def test_a_length_beside_chunks_is_dropped(self, forward: Forward) -> None:
        headers = [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")]

        assert values(forward(headers), b"content-length") == []

    def test_a_length_alone_is_forwarded(self, forward: Forward) -> None:
        assert values(forward([(b"Content-Length", b"3")]), b"content-length") == [b"3"]


class TestToClient:
    def test_several_cookies_stay_several(self) -> None:
        answered = to_client([(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")])

        assert values(answered, b"set-cookie") == [b"a=1", b"b=2"]

    @pytest.mark.parametrize("name", [b"X-Gateway-Secret", b"Date"])
    def test_the_secret_and_a_second_date_are_not_sent_to_clients(self, name: bytes) -> None:
        assert to_client([(name, b"x")]) == []
