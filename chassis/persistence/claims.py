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
