"""A migration leaves the running code of the last release able to work: it expands, then contracts.

Those of the releases so far are exempt. A later one that contracts says in ``contracts`` why no
running code needs what it removes (docs/operations.md, "Upgrades").
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from .repository import files, read

#: Written before the rule.
EXEMPT: Final = {
    "chassis_0001",
    "chassis_0002",
    "chassis_0003",
    "users_0001",
    "accounts_0001",
    "audit_0001",
    "notification_0001",
}
_REMOVES: Final = {"drop_table", "drop_column", "drop_constraint", "drop_index", "rename_table"}
_CHECKS_ROWS: Final = {
    "create_check_constraint",
    "create_exclude_constraint",
    "create_foreign_key",
    "create_primary_key",
    "create_unique_constraint",
}
_SQL_REMOVES: Final = re.compile(
    # A trigger may be made for TRUNCATE ON a table.
    r"\b(DROP|RENAME|TRUNCATE(?! ON)|SET NOT NULL|SET DATA TYPE|TYPE)\b",
    re.IGNORECASE,
)
_SQL_INDEX: Final = re.compile(r"\bCREATE\s+(UNIQUE\s+)?INDEX\b(?!\s+CONCURRENTLY)", re.IGNORECASE)


def revisions() -> list[Path]:
    return [
        path
        for path in files()
        if path.parent.name == "versions"
        and path.suffix == ".py"
        and path.parts[0] != "tests"
        and _revision_of(read(path)) not in EXEMPT
    ]


def _revision_of(source: str) -> str:
    found = re.search(r'(?m)^revision\b[^=\n]*= "(.+)"$', source)
    return found[1] if found else ""


def violations(source: str) -> list[str]:
    """Return what of a revision the code of the last release may not work with, or waits for."""
    module = ast.parse(source)
    contracts = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "contracts"
        for node in module.body
    )
    calls = list(_operations(module))
    new = {_first(call) for name, call in calls if name == "create_table"}
    found = []
    for name, call in calls:
        if name == "create_table" or (_first(call) in new and name != "execute"):
            continue
        found += _locks(name, call)
        if not contracts:
            found += _removes(name, call)
    return found


def _operations(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of ``op``, in upgrade() or in a function that it may call."""
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef) and statement.name != "downgrade":
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("op."):
                    yield ast.unparse(node.func).removeprefix("op."), node


def _first(call: ast.Call) -> str:
    """Return the table that a call is about."""
    named = {each.arg: ast.unparse(each.value) for each in call.keywords}
    position = 1 if ast.unparse(call.func) in _TABLE_IS_SECOND else 0
    given = ast.unparse(call.args[position]) if len(call.args) > position else ""
    return named.get("table_name") or named.get("source_table") or given


_TABLE_IS_SECOND: Final = {
    "op.create_index",
    "op.drop_index",
    "op.drop_constraint",
    *(f"op.{each}" for each in _CHECKS_ROWS),
}


def _removes(name: str, call: ast.Call) -> list[str]:
    options = {each.arg: ast.unparse(each.value) for each in call.keywords}
    text = ast.unparse(call)
    if name in _REMOVES:
        return [f"{text}: running code may need it"]
    if name == "alter_column" and (
        {"new_column_name", "type_"} & options.keys() or options.get("nullable") == "False"
    ):
        return [f"{text}: running code may write or read it as it was"]
    if name == "add_column" and "nullable=False" in text and "server_default" not in text:
        return [f"{text}: running code writes rows without it"]
    if name == "execute" and _SQL_REMOVES.search(text):
        return [f"{text}: running code may need what was there"]
    return []


def _locks(name: str, call: ast.Call) -> list[str]:
    text = ast.unparse(call)
    if name == "create_index" and "postgresql_concurrently=True" not in text:
        return [f"{text}: writers wait for it; make it in concurrently()"]
    if name == "execute" and _SQL_INDEX.search(text):
        return [f"{text}: writers wait for it; make it CONCURRENTLY, in concurrently()"]
    if name in _CHECKS_ROWS and "postgresql_not_valid=True" not in text:
        return [
            f"{text}: every row is checked under a lock; add it as not valid, validate it later"
        ]
    return []


def test_a_later_migration_expands_and_does_not_contract() -> None:
    found = {str(path): violations(read(path)) for path in revisions()}

    assert {path: wrong for path, wrong in found.items() if wrong} == {}


class TestViolations:
    @pytest.mark.parametrize(
        "statement",
        [
            'op.drop_column("toys", "name")',
            'op.drop_table("toys")',
            'op.rename_table("toys", "games")',
            'op.drop_constraint("toys_pkey", "toys")',
            'op.alter_column("toys", "name", new_column_name="title")',
            'op.alter_column("toys", "name", nullable=False)',
            'op.add_column("toys", sa.Column("price", sa.Integer(), nullable=False))',
            'op.execute("ALTER TABLE toys DROP COLUMN name")',
            'op.execute("ALTER TABLE toys ALTER price TYPE bigint")',
            'op.execute("TRUNCATE toys")',
        ],
    )
    def test_what_running_code_may_need_is_removed_only_by_a_revision_that_contracts(
        self, statement: str
    ) -> None:
        upgrade = f"def upgrade():\n    {statement}\n"

        assert len(violations(upgrade)) == 1
        assert violations(f"contracts = 'unused since 1.2'\n{upgrade}") == []

    @pytest.mark.parametrize(
        "statement",
        [
            'op.create_index("toys_name", "toys", ["name"])',
            'op.execute("CREATE UNIQUE INDEX toys_name ON toys (name)")',
            'op.create_check_constraint("paid", "toys", "price > 0")',
            'op.create_unique_constraint("named", "toys", ["name"])',
        ],
    )
    def test_what_keeps_writers_waiting_is_refused_also_where_it_contracts(
        self, statement: str
    ) -> None:
        upgrade = f"contracts = 'unused'\ndef upgrade():\n    {statement}\n"

        assert len(violations(upgrade)) == 1

    @pytest.mark.parametrize(
        "statement",
        [
            'op.add_column("toys", sa.Column("price", sa.Integer()))',
            'op.add_column("toys", sa.Column("n", sa.Text(), nullable=False, server_default=""))',
            'op.create_index("name", "toys", ["name"], postgresql_concurrently=True)',
            'op.execute("CREATE INDEX CONCURRENTLY name ON toys (name)")',
            'op.create_check_constraint("paid", "toys", "price > 0", postgresql_not_valid=True)',
            'op.execute("CREATE TRIGGER fixed BEFORE TRUNCATE ON toys EXECUTE FUNCTION refuse()")',
            'op.create_table("new", sa.Column("a")); op.create_index("a", "new", ["a"])',
        ],
    )
    def test_what_expands_is_allowed(self, statement: str) -> None:
        assert violations(f"def upgrade():\n    {statement}\n") == []

    def test_going_down_may_remove(self) -> None:
        assert violations('def downgrade():\n    op.drop_table("toys")\n') == []

    def test_the_exempt_ones_would_not_all_pass(self) -> None:
        exempt = [path for path in files() if path.parent.name == "versions" and "000" in path.stem]

        assert any(violations(read(path)) for path in exempt)
