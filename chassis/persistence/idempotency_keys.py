"""The Idempotency-Keys of the last 24 h, each with its answer."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlalchemy import and_, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from chassis.periodic import Periodic
from chassis.persistence import tables
from chassis.persistence.database import Connection, Database

KEEP: Final = timedelta(hours=24)
_UNANSWERED: Final = 0
_PURGE_EVERY_S: Final = 60.0
_PURGE_ROWS: Final = 1_000

_table = tables.idempotency_keys
_NO_ANSWER: Final = {"body_hmac": b"", "status": _UNANSWERED, "headers": {}, "body": b""}

_claim = insert(_table)  # its values are those that it is executed with
_CLAIM: Final = _claim.on_conflict_do_update(
    index_elements=_table.primary_key,
    set_={"created_at": _claim.excluded.created_at},
    # It has expired, or its request did not succeed.
    where=(_table.c.created_at <= bindparam("expired_at")) | (_table.c.status == _UNANSWERED),
).returning(_table.c.key)
_is_it = and_(*(column == bindparam(f"of_{column.name}") for column in _table.primary_key))
_REMEMBER: Final = update(_table).where(_is_it)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ScopedKey:
    """A client's key, which is valid for one principal and one route only.

    On a route that anyone may call ``principal`` is empty, and ``key`` begins with the keyed
    fingerprint of the request: a client who guesses the key of another can't take it first.
    """

    principal: str
    route: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An earlier answer, and the fingerprint of its request."""

    body_hmac: bytes
    status: int
    headers: dict[str, str]
    body: bytes


_ANSWER: Final = select(*(_table.c[each.name] for each in fields(StoredAnswer))).where(_is_it)


def _of(key: ScopedKey) -> dict[str, str]:
    return {f"of_{name}": value for name, value in asdict(key).items()}


class IdempotencyKeys(Protocol):
    """The keys, within one transaction."""

    async def claim(self, key: ScopedKey, now: datetime) -> StoredAnswer | None:
        """Claim the key for this transaction, or return its stored answer.

        Waits for another transaction that has claimed it. To be called first in a transaction.
        """

    async def remember(self, key: ScopedKey, answer: StoredAnswer, now: datetime) -> None:
        """Store the answer of a claimed key."""


class PostgresIdempotencyKeys:
    """Keys in the table ``idempotency_keys``.

    The claim is an insert, so when two transactions claim one key, the second waits for the first
    one's row. When the first commits, the second reads its answer: in READ COMMITTED each statement
    sees what was committed before it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def claim(self, key: ScopedKey, now: datetime) -> StoredAnswer | None:
        values = {**asdict(key), **_NO_ANSWER, "created_at": now, "expired_at": now - KEEP}
        taken = await self._connection.execute(_CLAIM, values)
        if taken.first() is not None:
            return None
        found = await self._connection.execute(_ANSWER, _of(key))
        return StoredAnswer(*found.one())

    async def remember(self, key: ScopedKey, answer: StoredAnswer, now: datetime) -> None:
        values = {**asdict(answer), "created_at": now}
        await self._connection.execute(_REMEMBER, {**values, **_of(key)})


class ExpiredKeys(Periodic):
    """A component that deletes keys older than 24 h, every minute, a thousand at a time."""

    name = "expired-idempotency-keys"

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._database = database
        self._now = now

    async def step(self) -> float:
        try:
            while await self.purge() == _PURGE_ROWS and not self._stopped.is_set():
                continue
        except Exception as error:  # noqa: BLE001 - the next step deletes what is left
            _log.warning("expired keys not deleted", error=type(error).__qualname__)
        return _PURGE_EVERY_S

    async def purge(self) -> int:
        """Delete up to 1,000 expired keys, and return how many were deleted."""
        key = tuple_(*_table.primary_key)
        expired = (
            select(*_table.primary_key)
            .where(_table.c.created_at <= self._now() - KEEP)
            .order_by(_table.c.created_at)
            .limit(_PURGE_ROWS)
            .with_for_update(skip_locked=True)
        )
        async with self._database.connect() as connection:
            gone = await connection.execute(delete(_table).where(key.in_(expired)))
            return gone.rowcount
