"""Money: a whole number of a currency's minor units, such as cents."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

from accounts_service.domain.errors import InvalidAmount

MOST_MINOR_UNITS: Final = 2**63 - 1
"""The most that an account may have: what the database keeps in 64 bits."""

# Digits of ASCII only, and no sign of thousands: "1,230" is 1.23 to one reader and 1230 to another.
_DECIMAL: Final = re.compile(r"(-?)(0|[1-9][0-9]{0,18})(?:\.([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Currency:
    """An ISO 4217 currency: its code, and how many decimals its minor unit is away."""

    code: str
    decimals: int


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of a currency; ``str()`` gives it as decimal text, which ``parse`` reads."""

    minor_units: int
    currency: Currency

    @classmethod
    def parse(cls, text: str, currency: Currency) -> Self:
        """Return the amount that a decimal text such as ``12.30`` states.

        :raises InvalidAmount: it is no decimal text, or has more decimals than the currency, or is
            more than 64 bits can hold; it is never rounded
        """
        found = _DECIMAL.fullmatch(text)
        if found is None:
            raise InvalidAmount("not-decimal", "must be digits with a point, such as 12.30")
        sign, whole, fraction = found[1], found[2], found[3] or ""
        if len(fraction) > currency.decimals:
            raise InvalidAmount(
                "too-many-decimals", f"{currency.code} has {currency.decimals} decimals at most"
            )
        minor_units = int(sign + whole + fraction.ljust(currency.decimals, "0"))
        if abs(minor_units) > MOST_MINOR_UNITS:
            raise InvalidAmount("too-large", f"must be at most {cls(MOST_MINOR_UNITS, currency)}")
        return cls(minor_units, currency)

    def __str__(self) -> str:
        return f"{Decimal(self.minor_units).scaleb(-self.currency.decimals):f}"
