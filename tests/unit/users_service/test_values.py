import unicodedata
from collections.abc import Callable
from typing import Literal

import pytest

from users_service.domain.common_passwords import common_passwords
from users_service.domain.errors import (
    InvalidAlias,
    InvalidEmail,
    InvalidPassword,
    InvalidUsername,
    PasswordIsCommon,
    PasswordIsKnown,
)
from users_service.domain.values import Alias, EmailAddress, Password, PasswordHash, Username


class TestUsername:
    @pytest.mark.parametrize("text", ["al", "a" * 15, "a.b-c+d_e", "007", "--"])
    def test_two_to_fifteen_of_the_allowed_characters_are_a_username(self, text: str) -> None:
        assert Username.parse(text).value == text

    @pytest.mark.parametrize(
        "text", ["", "a", "a" * 16, "a b", "a@b", "é" * 4, "kate\n", " kate", "a\x00b"]
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidUsername, match="2 to 15 characters"):
            Username.parse(text)

    def test_upper_case_is_folded(self) -> None:
        assert Username.parse("KaTe") == Username.parse("kate")

    def test_a_letter_that_only_folds_to_an_allowed_one_is_refused(self) -> None:
        kelvin_sign = "\u212a"
        assert kelvin_sign.lower() == "k"

        with pytest.raises(InvalidUsername):
            Username.parse(f"{kelvin_sign}ate")

    def test_an_alias_has_the_same_rule_and_its_own_error(self) -> None:
        assert Alias.parse("Kate-2").value == "kate-2"
        with pytest.raises(InvalidAlias):
            Alias.parse("k")


class TestEmailAddress:
    def test_it_is_trimmed_and_folded(self) -> None:
        assert EmailAddress.parse("  Kate@Example.COM ").value == "kate@example.com"

    @pytest.mark.parametrize("text", ["k@localhost", "o'neil+tag@mail.example.co.uk", "a@1.2"])
    def test_what_a_browser_accepts_is_accepted(self, text: str) -> None:
        assert EmailAddress.parse(text).value == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "kate",
            "@example.com",
            "kate@",
            "ka te@example.com",
            "kate@-a.com",
            "kate@a..b",
            "kate@exa\x00mple.com",
            "kate@exämple.com",
            "kate@example.com\nbcc:all@example.com",
        ],
    )
    def test_what_is_no_address_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidEmail):
            EmailAddress.parse(text)

    def test_254_characters_are_the_most(self) -> None:
        domain = ".".join(["d" * 61] * 4)
        longest = f"{'k' * (254 - len(domain) - 1)}@{domain}"

        assert EmailAddress.parse(longest).value == longest
        with pytest.raises(InvalidEmail):
            EmailAddress.parse(f"k{longest}")

    @pytest.mark.timeout(2)
    def test_a_hostile_address_is_refused_quickly(self) -> None:
        with pytest.raises(InvalidEmail):
            EmailAddress.parse("a@" + "a." * 1_000_000)


TOO_DEAR_TO_NORMALIZE = [
    pytest.param("a" + "\u0345" * 16_000 + "\u0334" * 16_000, id="many marks"),
    pytest.param("x" * 8 + "\u0345" * 16 + "\u0334" * 15, id="a mark too many"),
    pytest.param("x" * 4097, id="long"),
]


@pytest.fixture
def normalized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was normalized: to sort marks takes quadratic time, and holds up all clients."""
    texts: list[str] = []
    normalize = unicodedata.normalize

    def note(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
        texts.append(text)
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", note)
    return texts


class TestPassword:
    @pytest.mark.parametrize("length", [8, 1024])
    def test_8_to_1024_characters_are_a_password(self, length: int) -> None:
        assert Password.parse("ü" * length).value == "ü" * length

    @pytest.mark.parametrize("length", [0, 7, 1025])
    def test_shorter_and_longer_ones_are_refused(self, length: int) -> None:
        with pytest.raises(InvalidPassword, match="8 to 1024 characters"):
            Password.parse("x" * length)

    @pytest.mark.parametrize("text", ["password", "12345678", "PassWord1"])
    def test_one_of_the_most_common_is_refused_in_any_case(self, text: str) -> None:
        with pytest.raises(PasswordIsCommon, match="10,000 most common"):
            Password.parse(text)

    def test_the_most_common_are_ten_thousand_that_are_long_enough(self) -> None:
        assert len(common_passwords()) == 10_000
        assert {text for text in common_passwords() if len(text) < 8 or text.isspace()} == set()

    @pytest.mark.parametrize("text", ["kate.adams", "Kate.Adams", "kate@example.com"])
    def test_the_name_and_the_address_of_its_user_are_refused(self, text: str) -> None:
        with pytest.raises(PasswordIsKnown):
            Password.parse(text, known=("kate.adams", "kate@example.com"))

    def test_composed_and_decomposed_characters_are_the_same_password(self) -> None:
        assert Password.parse("u\u0308" * 8) == Password.parse("\u00fc" * 8)

    @pytest.mark.parametrize("text", TOO_DEAR_TO_NORMALIZE)
    def test_is_refused_before_it_is_normalized_where_that_would_be_dear(
        self, text: str, normalized: list[str]
    ) -> None:
        with pytest.raises(InvalidPassword):
            Password.parse(text)

        assert normalized == []

    @pytest.mark.parametrize("text", TOO_DEAR_TO_NORMALIZE)
    def test_is_not_normalized_at_a_sign_in_where_that_would_be_dear(
        self, text: str, normalized: list[str]
    ) -> None:
        offered = Password.offered(text).value

        assert normalized == []
        assert offered == text[:1025]
        with pytest.raises(InvalidPassword):
            Password.parse(offered)  # so nobody has it

    def test_may_have_thirty_marks_on_one_character(self) -> None:
        text = "x" * 8 + "\u0345" * 15 + "\u0334" * 15

        assert Password.parse(text) == Password.offered(text)

    def test_surrounding_spaces_are_kept(self) -> None:
        assert Password.parse(" 123456 ").value == " 123456 "

    @pytest.mark.parametrize("secret", [Password.parse, Password.offered, PasswordHash])
    def test_its_repr_does_not_show_it(self, secret: Callable[[str], object]) -> None:
        assert "correct horse" not in repr(secret("correct horse"))
        assert "correct horse" not in f"{secret('correct horse')}"
