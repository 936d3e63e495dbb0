import pytest

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.domain.errors import InvalidAmount
from accounts_service.domain.money import MOST_MINOR_UNITS, Money


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "code", "minor_units"),
        [
            ("12.30", "USD", 1_230),
            ("12.3", "USD", 1_230),
            ("12", "USD", 1_200),
            ("0.01", "USD", 1),
            ("-0.05", "USD", -5),
            ("0", "USD", 0),
            ("1230", "JPY", 1_230),
            ("1.234", "BHD", 1_234),
            ("0.0001", "CLF", 1),
            ("92233720368547758.07", "USD", MOST_MINOR_UNITS),
        ],
    )
    def test_decimal_text_is_read_exactly(self, text: str, code: str, minor_units: int) -> None:
        assert Money.parse(text, CURRENCIES[code]).minor_units == minor_units

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("", "not-decimal"),
            (" 1", "not-decimal"),
            ("1\n", "not-decimal"),
            ("+1", "not-decimal"),
            ("01", "not-decimal"),
            (".5", "not-decimal"),
            ("5.", "not-decimal"),
            ("1,230", "not-decimal"),
            ("1e3", "not-decimal"),
            ("0x10", "not-decimal"),
            ("NaN", "not-decimal"),
            ("Infinity", "not-decimal"),
            ("\N{ARABIC-INDIC DIGIT ONE}", "not-decimal"),
            ("\N{MINUS SIGN}1", "not-decimal"),
            ("99999999999999999999", "not-decimal"),
            ("12.300", "too-many-decimals"),
            ("0.001", "too-many-decimals"),
            ("92233720368547758.08", "too-large"),
            ("-92233720368547758.08", "too-large"),
        ],
    )
    def test_what_is_no_amount_is_refused(self, text: str, code: str) -> None:
        with pytest.raises(InvalidAmount) as refused:
            Money.parse(text, CURRENCIES["USD"])

        assert [(each.field, each.code) for each in refused.value.broken] == [("amount", code)]

    def test_a_currency_without_a_minor_unit_takes_no_decimals(self) -> None:
        with pytest.raises(InvalidAmount, match="JPY has 0 decimals at most"):
            Money.parse("1.0", CURRENCIES["JPY"])


@pytest.mark.parametrize(
    ("minor_units", "code", "text"),
    [
        (1_230, "USD", "12.30"),
        (-5, "USD", "-0.05"),
        (0, "USD", "0.00"),
        (7, "JPY", "7"),
        (1, "CLF", "0.0001"),
        (-MOST_MINOR_UNITS, "USD", "-92233720368547758.07"),
    ],
)
def test_it_is_written_as_it_is_read(minor_units: int, code: str, text: str) -> None:
    money = Money(minor_units, CURRENCIES[code])

    assert str(money) == text
    assert Money.parse(text, money.currency) == money
