"""The currencies of ISO 4217 that have a minor unit, from the list that its agency publishes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from uuid import UUID, uuid5

import iso4217

from accounts_service.domain.money import Currency

CURRENCIES: Final[Mapping[str, Currency]] = MappingProxyType(
    {
        each.code: Currency(each.code, each.exponent)
        for each in iso4217.Currency
        # Gold, testing and the like have none.
        if each.exponent is not None
    }
)
"""By their codes."""

_HOUSE: Final = UUID("6c1f3b0e-5d2a-5c7e-9b48-1f0e2d3c4b5a")


def _cash_account(code: str) -> UUID:
    return uuid5(_HOUSE, f"cash/{code}")


CASH_ACCOUNTS: Final[Mapping[str, UUID]] = MappingProxyType(
    {code: _cash_account(code) for code in CURRENCIES}
)
"""The house's account of cash in each currency; a migration has added them."""

HOUSE_ACCOUNTS: Final = frozenset(CASH_ACCOUNTS.values())
