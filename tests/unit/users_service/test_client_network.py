from ipaddress import ip_network

import pytest
from fastapi import Request
from pydantic import SecretStr

from users_service.application.ports import Network
from users_service.entrypoints.client_network import client_network

SECRET = "g" * 32


def network_of(peer: str | None, secret: str = SECRET, **headers: str) -> str:
    return request_from(peer, secret, (), **headers).name


def request_from(
    peer: str | None, secret: str = SECRET, shared: tuple[str, ...] = (), **headers: str
) -> Network:
    scope = {
        "type": "http",
        "client": (peer, 1234) if peer else None,
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    }
    network = client_network(SecretStr(secret), [ip_network(each) for each in shared])
    return network(Request(scope))


class TestClientNetwork:
    def test_the_peer_address_counts(self) -> None:
        assert network_of("192.0.2.1") == "192.0.2.1"

    def test_an_address_forwarded_by_the_gateway_counts(self) -> None:
        forwarded = network_of("127.0.0.1", x_forwarded_for="192.0.2.9", x_gateway_secret=SECRET)

        assert forwarded == "192.0.2.9"

    @pytest.mark.parametrize("secret", [SECRET, "n" * 32])
    def test_while_the_secret_is_changed_either_counts(self, secret: str) -> None:
        both = f"{SECRET},{'n' * 32}"

        forwarded = network_of(
            "127.0.0.1", both, x_forwarded_for="192.0.2.9", x_gateway_secret=secret
        )

        assert forwarded == "192.0.2.9"

    @pytest.mark.parametrize("secret", ["", "wrong", "ä" * 32, SECRET[:-1]])
    def test_an_address_forwarded_without_the_secret_does_not_count(self, secret: str) -> None:
        forwarded = network_of("127.0.0.1", x_forwarded_for="192.0.2.9", x_gateway_secret=secret)

        assert forwarded == "127.0.0.1"

    def test_the_gateways_own_request_has_its_own_address(self) -> None:
        assert network_of("127.0.0.1", x_gateway_secret=SECRET) == "127.0.0.1"

    def test_an_ipv6_network_counts_as_one(self) -> None:
        assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") == "2001:db8::/64"
        assert network_of("2001:db8:0:1::1") == "2001:db8:0:1::/64"

    def test_an_ipv4_client_of_an_ipv6_socket_has_its_ipv4_address(self) -> None:
        assert network_of("::ffff:192.0.2.1") == "192.0.2.1"

    @pytest.mark.parametrize("peer", [None, "no address", "192.0.2.1, 192.0.2.2"])
    def test_all_invalid_addresses_are_one_network(self, peer: str | None) -> None:
        assert network_of(peer) == "unknown"

    @pytest.mark.parametrize("peer", ["198.51.100.7", "::ffff:198.51.100.7", "2001:db8:5::1"])
    def test_an_address_that_many_people_share_is_known_as_such(self, peer: str) -> None:
        assert request_from(peer, shared=("198.51.100.0/24", "2001:db8:5::/48")).shared

    @pytest.mark.parametrize("peer", ["198.51.101.7", "2001:db8:6::1", "no address"])
    def test_another_address_is_not_shared(self, peer: str) -> None:
        assert not request_from(peer, shared=("198.51.100.0/24", "2001:db8:5::/48")).shared
