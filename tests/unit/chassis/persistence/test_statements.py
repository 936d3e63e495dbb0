"""Statements are compiled once, and by the names of their values."""

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, Table, Text, bindparam, insert, select, text

from chassis.persistence.statements import compiled

things = Table("things", MetaData(), Column("id", Integer), Column("name", Text))
_BY_ID = select(things.c.name).where(things.c.id == bindparam("of_id"), things.c.name != "x")


def test_a_clause_is_compiled_once() -> None:
    assert compiled(_BY_ID, ["of_id"]) is compiled(_BY_ID, ["of_id", "another"])


def test_an_insert_is_compiled_for_each_set_of_columns() -> None:
    clause = insert(things)

    one, both = compiled(clause, ["id"]), compiled(clause, ["id", "name"])

    assert (one.sql, both.sql) == (
        "INSERT INTO things (id) VALUES ($1::INTEGER)",
        "INSERT INTO things (id, name) VALUES ($1::INTEGER, $2::VARCHAR)",
    )


def test_values_are_in_the_order_of_the_statement_with_those_it_contains() -> None:
    statement = compiled(_BY_ID, ["of_id"])

    assert statement.arguments({"of_id": 3}) == [3, "x"]
    assert statement.values({"of_id": 3}) == {"of_id": 3, "name_1": "x"}


def test_only_what_is_no_text_is_counted() -> None:
    assert compiled(things.delete(), []).counts
    assert not compiled(text("DELETE FROM things"), []).counts


def test_what_would_have_other_values_than_sqlalchemys_is_refused() -> None:
    of_table = Table(
        "others",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("extra", JSON),
        Column("at", Integer, onupdate=1),
    )

    with pytest.raises(TypeError, match="onupdate"):
        compiled(of_table.update(), ["id"])
    with pytest.raises(TypeError, match="JSON"):
        compiled(select(of_table.c.id).where(of_table.c.extra.in_([[1]])), [])
