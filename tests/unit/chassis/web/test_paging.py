"""Pages and filters of a list."""

import pytest
from pydantic import ValidationError
from sqlalchemy import Column, Integer, MetaData, Table, Text, select

from chassis.web.paging import Page, Search, matching, page_of

TOYS = Table("toys", MetaData(), Column("id", Integer), Column("colour", Text))


class ToySearch(Search):
    id: int | None = None
    colour: str | None = None
    limit: int = 50


class TestPageOf:
    def test_names_the_last_item_if_more_follow(self) -> None:
        assert page_of([1, 2, 3], 2, key=str) == Page([1, 2], "2")

    def test_names_no_next_page_if_it_holds_all(self) -> None:
        assert page_of([1, 2], 2, key=str) == Page([1, 2], None)

    def test_is_empty_if_nothing_was_found(self) -> None:
        assert page_of([], 2, key=str) == Page([], None)


class TestMatching:
    def test_compares_each_field_that_is_given(self) -> None:
        conditions = matching(
            ToySearch(id=0, colour="red"), {"id": TOYS.c.id, "colour": TOYS.c.colour}
        )
        assert str(select(TOYS.c.id).where(*conditions)).endswith(
            "WHERE toys.id = :id_1 AND toys.colour = :colour_1"
        )

    def test_has_no_condition_for_a_field_that_is_none(self) -> None:
        assert matching(ToySearch(), {"id": TOYS.c.id, "colour": TOYS.c.colour}) == []


class TestSearch:
    def test_refuses_a_field_that_it_does_not_have(self) -> None:
        with pytest.raises(ValidationError):
            ToySearch.model_validate({"color": "red"})
