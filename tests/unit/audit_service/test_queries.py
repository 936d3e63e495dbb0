"""Cursors: a place in the order of the search, as clients carry it about."""

from base64 import urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.queries import Place
from chassis.domain import InvalidFields

MOMENTS = st.datetimes(timezones=st.just(UTC))
POSITIONS = st.integers(min_value=0, max_value=2**63 - 1)


class TestACursor:
    @given(MOMENTS, POSITIONS)
    def test_leads_back_to_its_place(self, occurred_at: datetime, position: int) -> None:
        place = Place(occurred_at, position)
        assert Place.parse(str(place)) == place

    @given(st.one_of(st.text(), st.text("ABCDEFab01-_=", min_size=20, max_size=26)))
    def test_that_nobody_gave_out_is_a_place_or_refused(self, cursor: str) -> None:
        with suppress(InvalidFields):
            place = Place.parse(cursor)
            assert Place.parse(str(place)) == place

    @pytest.mark.parametrize(
        "cursor",
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
    def test_that_is_mangled_is_refused(self, cursor: str) -> None:
        with pytest.raises(InvalidFields):
            Place.parse(cursor)
