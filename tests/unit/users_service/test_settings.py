from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from users_service.settings import UsersSettings


def settings(shared_networks: str) -> UsersSettings:
    return UsersSettings(
        database_url=SecretStr("postgresql://users@127.0.0.1:1/users"),
        idempotency_secret=SecretStr("s" * 32),
        gateway_secret=SecretStr("g" * 32),
        sign_in_secret=SecretStr("i" * 32),
        keys_dir=Path("keys"),
        shared_networks=shared_networks,
    )


class TestSharedNetworks:
    def test_are_addresses_and_networks_with_commas_between(self) -> None:
        assert settings("192.0.2.7, 2001:db8::/48").shared() == [
            ip_network("192.0.2.7/32"),
            ip_network("2001:db8::/48"),
        ]
        assert settings("").shared() == []

    @pytest.mark.parametrize("text", ["office", "192.0.2.7/8", "192.0.2.7;192.0.2.8"])
    def test_anything_else_is_refused_at_the_start(self, text: str) -> None:
        with pytest.raises(ValidationError):
            settings(text)
