"""Names, addresses and passwords; each is valid once it is parsed."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from users_service.domain.common_passwords import common_passwords
from users_service.domain.errors import (
    InvalidAlias,
    InvalidEmail,
    InvalidPassword,
    InvalidUsername,
    InvalidValue,
    PasswordIsCommon,
    PasswordIsKnown,
)

NAME_MIN_CHARS: Final = 2
NAME_MAX_CHARS: Final = 15
EMAIL_MAX_CHARS: Final = 254
PASSWORD_MIN_CHARS: Final = 8
PASSWORD_MAX_CHARS: Final = 1024
# Some keyboards send a character as up to four code points, which normalizing puts together.
_PASSWORD_MAX_CODE_POINTS: Final = 4 * PASSWORD_MAX_CHARS
_MARKS_MAX: Final = 30

_NAME: Final = re.compile(rf"[A-Za-z0-9.+_-]{{{NAME_MIN_CHARS},{NAME_MAX_CHARS}}}")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# What browsers accept (HTML standard, "valid e-mail address").
_EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Username:
    """The name someone signs in by: 2 to 15 of ``a-z 0-9 . - + _``, upper case folded."""

    value: str

    @classmethod
    def parse(cls, text: str) -> "Username":
        return cls(_folded_name(text, InvalidUsername))


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a user, with the form of a username; it need not be unique."""

    value: str

    @classmethod
    def parse(cls, text: str) -> "Alias":
        return cls(_folded_name(text, InvalidAlias))


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An address, trimmed and in lower case for comparison, of at most 254 characters."""

    value: str

    @classmethod
    def parse(cls, text: str) -> "EmailAddress":
        address = text.strip()
        # The length first: it bounds the work of the pattern (RFC 5321, 4.5.3.1.3).
        if len(address) > EMAIL_MAX_CHARS or not _EMAIL.fullmatch(address):
            raise InvalidEmail(f"an e-mail address of at most {EMAIL_MAX_CHARS} characters")
        return cls(address.lower())


@dataclass(frozen=True, slots=True)
class Password:
    """A password in plain text; its ``repr`` does not show it."""

    value: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, known: Collection[str] = ()) -> "Password":
        """Return a new password, of 8 to 1024 characters.

        It is none of the most common ones, in any case (OWASP ASVS 5, 6.2.4).

        :param known: the user's name and address, which others know; the password is neither
        """
        if not _may_be_normalized(text):
            raise InvalidPassword(
                f"at most {PASSWORD_MAX_CHARS} characters, with at most {_MARKS_MAX} marks on one"
            )
        chosen = cls(_normalized(text))
        if not PASSWORD_MIN_CHARS <= len(chosen.value) <= PASSWORD_MAX_CHARS:
            raise InvalidPassword(f"{PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters")
        folded = chosen.value.casefold()
        if folded in common_passwords():
            raise PasswordIsCommon("none of the 10,000 most common passwords")
        if folded in known:
            raise PasswordIsKnown("neither the username nor the e-mail address")
        return chosen

    @classmethod
    def offered(cls, text: str) -> "Password":
        """Return the password of a sign-in; one that can't be anybody's is shortened, if long."""
        if not _may_be_normalized(text):
            # Longer than any password, or with more marks: it is checked like any wrong one.
            return cls(text[: PASSWORD_MAX_CHARS + 1])
        return cls(_normalized(text))


def _may_be_normalized(text: str) -> bool:
    """Return whether normalizing is cheap: it sorts each run of marks, in quadratic time.

    No more than 30 marks in a row is the Stream-Safe Text Format (Unicode Annex 15, 13).
    """
    if len(text) > _PASSWORD_MAX_CODE_POINTS:
        return False
    in_a_row = 0
    for character in text:
        in_a_row = in_a_row + 1 if unicodedata.combining(character) else 0
        if in_a_row > _MARKS_MAX:
            return False
    return True


def _normalized(text: str) -> str:
    # The same characters in one form, whichever keyboard typed them (RFC 8265, 4.2).
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """The hash of a password; its ``repr`` does not show it."""

    value: str = field(repr=False)


def _folded_name(text: str, refusal: type[InvalidValue]) -> str:
    # Matched before folding: some letters outside ASCII fold to one inside (U+212A to k).
    if not _NAME.fullmatch(text):
        raise refusal(f"{NAME_MIN_CHARS} to {NAME_MAX_CHARS} characters of a-z 0-9 . - + _")
    return text.lower()
