"""Cursors: a position in the order of the search, as the text that clients get."""

from base64 import urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.queries import Cursor
from chassis.domain import InvalidFields

MOMENTS = st.datetimes(timezones=st.just(UTC))
POSITIONS = st.integers(min_value=0, max_value=2**63 - 1)


class TestACursor:
    @given(MOMENTS, POSITIONS)
    def test_is_read_back_as_it_was_written(self, occurred_at: datetime, position: int) -> None:
        cursor = Cursor(occurred_at, position)
        assert Cursor.parse(str(cursor)) == cursor

    @given(st.one_of(st.text(), st.text("ABCDEFab01-_=", min_size=20, max_size=26)))
    def test_from_any_text_is_read_exactly_or_refused(self, text: str) -> None:
        with suppress(InvalidFields):
            cursor = Cursor.parse(text)
            assert Cursor.parse(str(cursor)) == cursor

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "é",
            "AAAA\nAAAA",
            pytest.param(urlsafe_b64encode(b"\x7f" * 16).decode(), id="after the year 9999"),
            pytest.param(urlsafe_b64encode(b"\x80" * 16).decode(), id="before the year 1"),
        ],
    )
    def test_from_a_text_that_is_no_cursor_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidFields):
            Cursor.parse(text)
