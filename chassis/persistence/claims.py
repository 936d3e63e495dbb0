"""Due rows that any number of workers share: claimed, counted, and given back with a pause.

A claim is one statement. It locks rows that no other claim has locked, counts itself in them, and
moves the time at which they are due to the end of a lease: a worker that dies loses nothing. The
count identifies the claim, so that a worker that was frozen past its lease changes nothing.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Integer,
    Update,
    and_,
    bindparam,
    select,
    true,
    update,
)

from chassis.backoff import Backoff

FIRST_RETRY_S: Final = 0.5


def retries(longest_s: float) -> Backoff:
    """Return the pauses before what failed is claimed again."""
    return Backoff(FIRST_RETRY_S, longest_s)


def due(
    key: Column[Any],
    due_at: Column[datetime],
    now: ColumnElement[datetime],
    *conditions: ColumnElement[bool],
    most: ColumnElement[int] | None = None,
    name: str = "due",
) -> CTE:
    """Select and lock the keys of due rows, the longest due first, and skip locked ones.

    :param most: how many, at most; by default the parameter ``most``
    """
    # A CTE: an IN (SELECT …) may be executed, and lock rows, more than once.
    return (
        select(key)
        .where(due_at <= now, *conditions)
        .order_by(due_at, key)
        .limit(bindparam("most", type_=Integer) if most is None else most)
        .with_for_update(skip_locked=True)
        .cte(name)
    )


def groups_of(group: Column[Any], *equalities: ColumnElement[bool]) -> CTE:
    """Select each value that a column has in the rows, and a null behind the last.

    It reads one row for each value, by an index on the columns of the equalities and this one.
    """
    name = group.name
    first = select(group).where(*equalities).order_by(group).limit(1).subquery("first")
    groups = select(first.c[name]).cte(f"groups_of_{name}", recursive=True)
    following = (
        select(group)
        .where(*equalities, group > groups.c[name])
        .order_by(group)
        .limit(1)
        .correlate(groups)
        .scalar_subquery()
    )
    return groups.union_all(select(following).where(groups.c[name].is_not(None)))


def due_in_groups(
    groups: CTE,
    group: Column[Any],
    key: Column[Any],
    due_at: Column[datetime],
    now: ColumnElement[datetime],
    *equalities: ColumnElement[bool],
    where: ColumnElement[bool],
) -> CTE:
    """Select and lock as ``due`` does, in those groups only of which ``where`` is true.

    It reads no row of another group, and of each as many as are wanted in all: by an index on the
    columns of the equalities, the group, ``due_at`` and the key. Those that it does not return are
    locked too, until the statement ends.
    """
    most = bindparam("most", type_=Integer)
    of_group = (
        select(key, due_at)
        .where(*equalities, group == groups.c[group.name], due_at <= now)
        .order_by(due_at, key)
        .limit(most)
        .with_for_update(skip_locked=True)
        .correlate(groups)
        .lateral("of_group")
    )
    return (
        select(of_group.c[key.name])
        .select_from(groups.join(of_group, true()))
        .where(where)
        .order_by(of_group.c[due_at.name], of_group.c[key.name])
        .limit(most)
        .cte("due")
    )


def claim(
    key: Column[Any],
    claims: Column[int],
    due_at: Column[datetime],
    rows: CTE,
    *,
    until: ColumnElement[datetime],
) -> Update:
    """Claim these rows until then; the caller adds the other values that change."""
    return (
        update(key.table).where(key == rows.c[key.name]).values({claims: claims + 1, due_at: until})
    )


def is_ours(key: Column[Any], claims: Column[int]) -> ColumnElement[bool]:
    """Return whether no other worker has claimed the row ``of_id`` since the claim ``of_claim``."""
    return and_(
        key == bindparam("of_id", type_=key.type),
        claims == bindparam("of_claim", type_=claims.type),
    )
