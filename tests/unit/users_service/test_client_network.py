import pytest
from fastapi import Request
from pydantic import SecretStr

from users_service.entrypoints.client_network import client_network

SECRET = "g" * 32


def network_of(peer: str | None, **headers: str) -> str:
    scope = {
        "type": "http",
        "client": (peer, 1234) if peer else None,
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    }
    return client_network(SecretStr(SECRET))(Request(scope))


class TestClientNetwork:
    def test_the_peer_counts(self) -> None:
        assert network_of("192.0.2.1") == "192.0.2.1"

    def test_the_gateways_word_counts_for_its_clients(self) -> None:
        forwarded = network_of("127.0.0.1", x_forwarded_for="192.0.2.9", x_gateway_secret=SECRET)

        assert forwarded == "192.0.2.9"

    @pytest.mark.parametrize("secret", ["", "wrong", "ä" * 32, SECRET[:-1]])
    def test_nobody_elses_word_does_not_even_from_the_same_machine(self, secret: str) -> None:
        forwarded = network_of("127.0.0.1", x_forwarded_for="192.0.2.9", x_gateway_secret=secret)

        assert forwarded == "127.0.0.1"

    def test_the_gateways_own_requests_are_its_own(self) -> None:
        assert network_of("127.0.0.1", x_gateway_secret=SECRET) == "127.0.0.1"

    def test_a_whole_ipv6_network_counts_as_one(self) -> None:
        assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") == "2001:db8::/64"
        assert network_of("2001:db8:0:1::1") == "2001:db8:0:1::/64"

    def test_an_ipv4_client_of_an_ipv6_socket_is_itself(self) -> None:
        assert network_of("::ffff:192.0.2.1") == "192.0.2.1"

    @pytest.mark.parametrize("peer", [None, "no address", "192.0.2.1, 192.0.2.2"])
    def test_what_is_no_address_is_one_network_for_all(self, peer: str | None) -> None:
        assert network_of(peer) == "unknown"
