"""Whether the schema of a service's database is as new as its code.

Read from the files of the revisions: a process that serves does not import Alembic.
"""

import ast
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from asyncpg import UndefinedTableError
from sqlalchemy import text

from chassis.persistence.database import Database, is_away


def revision_directories(package: str) -> list[Path]:
    """Return where the revisions of a service are: the chassis's, and its own."""
    return [
        Path(str(resources.files(each))) / "migrations" / "versions"
        for each in ("chassis", package)
    ]


class SchemaVersion:
    """Compares the revisions that the database has with the newest that the code has.

    A database that is newer is none of its business: old code runs on the schema that the next
    release has migrated, until it is replaced (docs/operations.md, "Upgrades").
    """

    def __init__(self, database: Database, package: str) -> None:
        self._database = database
        self._before = _revisions(revision_directories(package))
        earlier = {each for before in self._before.values() for each in before}
        self._newest = self._before.keys() - earlier
        self._is_new_enough = False

    async def trouble(self) -> str | None:
        """Return why the code can't work with the schema; None: it can, or the database is away."""
        if self._is_new_enough:
            return None  # no schema gets older
        try:
            async with self._database.connect() as connection:
                found = await connection.scalars(text("SELECT version_num FROM alembic_version"))
                trouble = self._compare(set(found))
        except Exception as error:
            if is_away(error):
                return None  # which is another check
            if not isinstance(error, UndefinedTableError):
                raise
            trouble = self._compare(set())
        self._is_new_enough = trouble is None
        return trouble

    def _compare(self, found: set[str]) -> str | None:
        # A revision that the code does not know follows one that it knows.
        newer = found - self._before.keys()
        lacking = self._newest - found
        if len(lacking) <= len(newer):
            return None
        has = ", ".join(sorted(found)) or "no revision"
        return f"older than the code: it has {has}, and lacks {', '.join(sorted(lacking))}"


def _revisions(directories: Sequence[Path]) -> Mapping[str, Sequence[str]]:
    """Return each revision, and those before it."""
    found: dict[str, Sequence[str]] = {}
    for file in sorted(each for directory in directories for each in directory.glob("*.py")):
        assigned = {
            node.target.id: ast.literal_eval(node.value)
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id in ("revision", "down_revision")
            and node.value
        }
        if "revision" in assigned:
            before = assigned["down_revision"] or ()
            found[assigned["revision"]] = (before,) if isinstance(before, str) else tuple(before)
    return found
