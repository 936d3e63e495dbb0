"""SQLAlchemy defines and compiles statements, asyncpg executes them (``docs/decisions/0020``).

A clause that is executed again is compiled once: those that are run often are constants of their
modules, or come from a cached function. One that is built for each call is compiled each time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import TextClause

Values = Mapping[str, Any]

_DIALECT: Final = asyncpg.dialect()  # type: ignore[no-untyped-call]
_REQUIRED: Final = object()

_ANY_NAMES: Final = ((), False)

Process = Callable[[Any], Any]


class CompiledStatement:
    """A statement as PostgreSQL takes it.

    :ivar sql: with ``$1, $2 …`` for the values
    :ivar returns_rows: whether its answer has rows, and is no count
    :ivar counts: whether the number of its rows is known; text may do anything
    """

    __slots__ = ("_parameters", "counts", "returns_rows", "sql")

    def __init__(self, clause: Executable, names: Sequence[str], *, many: bool) -> None:
        options: dict[str, Any] = {"compile_kwargs": {"render_postcompile": True}}
        if isinstance(clause, UpdateBase) and names:
            options |= {"column_keys": list(names), "for_executemany": many}
        compiled: Any = clause.compile(dialect=_DIALECT, **options)  # type: ignore[attr-defined]
        self.sql = str(compiled)
        is_dml = isinstance(clause, UpdateBase)
        self.counts = not isinstance(clause, TextClause)
        self.returns_rows = bool(compiled.effective_returning) if is_dml else True
        self._parameters: list[tuple[str, Any, Process | None]] = []
        if isinstance(compiled, SQLCompiler):
            _refuse_what_is_not_supported(compiled)
            given = dict(compiled.params)
            given |= {c.key: _scalar_default(c) for c in compiled.insert_prefetch}
            for name in compiled.positiontup or ():
                bind = compiled.binds.get(name)
                if bind is None:  # an item of IN (…)
                    self._parameters.append((name, given[name], None))
                else:
                    default = _REQUIRED if bind.required else given[name]
                    self._parameters.append((name, default, _processor_of(bind.type)))

    def values(self, given: Values) -> dict[str, Any]:
        """Return all values by their names, those that the clause contains itself too.

        :raises TypeError: one is missing
        """
        found = {name: given.get(name, default) for name, default, _ in self._parameters}
        missing = [name for name, value in found.items() if value is _REQUIRED]
        if missing:
            raise TypeError(f"the statement needs a value for {', '.join(missing)}")
        return found

    def arguments(self, given: Values) -> list[Any]:
        """Return the values in the order of ``$1, $2 …``, as the driver takes them.

        :raises TypeError: one is missing
        """
        arguments = []
        for name, default, process in self._parameters:
            value = given.get(name, default)
            if value is _REQUIRED:
                raise TypeError(f"the statement needs a value for {name}")
            arguments.append(value if process is None else process(value))
        return arguments


_compiled: Final[
    "WeakKeyDictionary[Executable, dict[tuple[tuple[str, ...], bool], CompiledStatement]]"
] = WeakKeyDictionary()


def compiled(clause: Executable, names: Sequence[str], *, many: bool = False) -> CompiledStatement:
    """Return the clause compiled, by the same object at its second time.

    :param names: of the values that it is executed with; an INSERT without columns gets these
    :param many: it is executed for many sets of values
    """
    of_clause = _compiled.get(clause)
    if of_clause is None:
        of_clause = _compiled[clause] = {}
    key = (tuple(names), many) if isinstance(clause, UpdateBase) else _ANY_NAMES
    found = of_clause.get(key)
    if found is None:
        found = of_clause[key] = CompiledStatement(clause, names, many=many)
    return found


def _refuse_what_is_not_supported(compiled: Any) -> None:
    """:raises TypeError: the statement would be executed with other values than SQLAlchemy's"""
    if compiled.update_prefetch:
        raise TypeError("an onupdate in Python is not supported: give the column's value")
    for bind in compiled.binds.values():
        if bind.expanding and _processor_of(bind.type) is not None:
            raise TypeError(f"IN is not supported for values of the type {bind.type!r}")


def _scalar_default(column: Any) -> Any:
    if not column.default.is_scalar:
        raise TypeError(f"{column} has a default that is computed: give its value")
    return column.default.arg


def _processor_of(type_: Any) -> Process | None:
    process: Process | None = type_.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    return process
