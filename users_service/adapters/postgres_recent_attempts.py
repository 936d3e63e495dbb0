"""Recent attempts, and the networks that users signed in from, in PostgreSQL for all processes."""

import hmac
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import (
    Column,
    Delete,
    Table,
    bindparam,
    case,
    delete,
    exists,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from chassis.persistence.database import Database
from users_service.adapters.tables import sign_in_attempts as attempts
from users_service.adapters.tables import sign_in_networks as networks
from users_service.application.ports import Attempts

# More than one row is added, so that each table shrinks to the rows that are still needed.
_PURGED_AT_ONCE: Final = 10
_WRITTEN_AGAIN_AFTER: Final = timedelta(hours=1)
# Nobody waits for the disk: what a crash of the server loses here is the counts of a moment.
_UNFLUSHED: Final = func.set_config("synchronous_commit", "off", true())


_added = insert(attempts).values(count=1)
_is_over = attempts.c.window_began_at <= bindparam("over_at")
_COUNT: Final = _added.on_conflict_do_update(
    index_elements=attempts.primary_key,
    set_={
        "count": case((_is_over, 1), else_=attempts.c.count + 1),
        "window_began_at": case(
            (_is_over, _added.excluded.window_began_at), else_=attempts.c.window_began_at
        ),
    },
).returning(attempts.c.count, attempts.c.window_began_at, _UNFLUSHED)
_UNCOUNT: Final = (
    update(attempts)
    .where(
        attempts.c.fingerprint == bindparam("of_fingerprint"),
        attempts.c.window_began_at == bindparam("began_at"),
    )
    .values(count=func.greatest(attempts.c.count - 1, 0))
    .returning(_UNFLUSHED)
)
_seen = insert(networks)
_ADD: Final = _seen.on_conflict_do_update(
    index_elements=networks.primary_key,
    set_={"signed_in_at": _seen.excluded.signed_in_at},
    where=networks.c.signed_in_at <= bindparam("old_at"),
).returning(_UNFLUSHED)
_HAS: Final = select(
    exists().where(
        networks.c.fingerprint == bindparam("of_fingerprint"),
        networks.c.signed_in_at > bindparam("old_at"),
    )
)


def _purge(table: Table, at: Column[Any]) -> Delete:
    over = (
        select(table.c.fingerprint)
        .where(at <= bindparam("before"))
        .order_by(at)
        .limit(_PURGED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    return delete(table).where(table.c.fingerprint.in_(over))


_PURGE_ATTEMPTS: Final = _purge(attempts, attempts.c.window_began_at)
_PURGE_NETWORKS: Final = _purge(networks, networks.c.signed_in_at)


class PostgresRecentAttempts:
    """Each count is one upsert, a transaction by itself.

    Concurrent counts of one source wait for the row's lock; they conflict with no command.
    """

    def __init__(self, database: Database, secret: SecretStr) -> None:
        self._database = database
        self._secret = secret

    async def count(self, source: str, /, *, now: datetime, window: timedelta) -> Attempts:
        values = {
            "fingerprint": _fingerprint(self._secret, source),
            "window_began_at": now,
            "over_at": now - window,
        }
        async with self._database.connect() as connection:
            count, began_at, _ = (await connection.execute(_COUNT, values)).one()
            if count == 1:
                await connection.execute(_PURGE_ATTEMPTS, {"before": now - window})
        return Attempts(count, began_at)

    async def uncount(self, source: str, /, counted: Attempts) -> None:
        values = {
            "of_fingerprint": _fingerprint(self._secret, source),
            "began_at": counted.window_began_at,
        }
        async with self._database.connect() as connection:
            await connection.execute(_UNCOUNT, values)


class PostgresKnownNetworks:
    """One row for each user and network, written at most once an hour."""

    def __init__(self, database: Database, secret: SecretStr, *, kept: timedelta) -> None:
        self._database = database
        self._secret = secret
        self._kept = kept

    async def add(self, who: str, network: str, /, *, now: datetime) -> None:
        values = {
            "fingerprint": _fingerprint(self._secret, f"{who} {network}"),
            "signed_in_at": now,
            "old_at": now - _WRITTEN_AGAIN_AFTER,
        }
        async with self._database.connect() as connection:
            if (await connection.execute(_ADD, values)).first() is not None:
                await connection.execute(_PURGE_NETWORKS, {"before": now - self._kept})

    async def has(self, who: str, network: str, /, *, now: datetime) -> bool:
        values = {
            "of_fingerprint": _fingerprint(self._secret, f"{who} {network}"),
            "old_at": now - self._kept,
        }
        async with self._database.connect() as connection:
            return bool(await connection.scalar(_HAS, values))


def _fingerprint(secret: SecretStr, source: str) -> bytes:
    # Keyed, since a client may send the password as the name: the table must not reveal it.
    return hmac.digest(secret.get_secret_value().encode(), source.encode(), "sha256")
