"""Recent attempts, and the networks that users signed in from, in PostgreSQL for all processes."""

import hmac
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import Column, Table, case, delete, exists, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from users_service.adapters.tables import sign_in_attempts as attempts
from users_service.adapters.tables import sign_in_networks as networks
from users_service.application.ports import Attempts

# More than one row is added, so that each table shrinks to the rows that are still needed.
_PURGED_AT_ONCE: Final = 10
_WRITTEN_AGAIN_AFTER: Final = timedelta(hours=1)
# Nobody waits for the disk: what a crash of the server loses here is the counts of a moment.
_UNFLUSHED: Final = func.set_config("synchronous_commit", "off", true())


class PostgresRecentAttempts:
    """Each count is one upsert, a transaction by itself.

    Concurrent counts of one source wait for the row's lock; they conflict with no command.
    """

    def __init__(self, engine: AsyncEngine, secret: SecretStr) -> None:
        self._engine = _statement_by_statement(engine)
        self._secret = secret

    async def count(self, source: str, /, *, now: datetime, window: timedelta) -> Attempts:
        row = insert(attempts).values(
            fingerprint=_fingerprint(self._secret, source), count=1, window_began_at=now
        )
        is_over = attempts.c.window_began_at <= now - window
        upsert = row.on_conflict_do_update(
            index_elements=attempts.primary_key,
            set_={
                "count": case((is_over, 1), else_=attempts.c.count + 1),
                "window_began_at": case((is_over, now), else_=attempts.c.window_began_at),
            },
        ).returning(attempts.c.count, attempts.c.window_began_at, _UNFLUSHED)
        async with self._engine.connect() as connection:
            count, began_at, _ = (await connection.execute(upsert)).one()
            if count == 1:
                await _purge(connection, attempts, attempts.c.window_began_at, now - window)
        return Attempts(count, began_at)

    async def uncount(self, source: str, /, counted: Attempts) -> None:
        less = (
            update(attempts)
            .where(
                attempts.c.fingerprint == _fingerprint(self._secret, source),
                attempts.c.window_began_at == counted.window_began_at,
            )
            .values(count=func.greatest(attempts.c.count - 1, 0))
            .returning(_UNFLUSHED)
        )
        async with self._engine.connect() as connection:
            await connection.execute(less)


class PostgresKnownNetworks:
    """One row for each user and network, written at most once an hour."""

    def __init__(self, engine: AsyncEngine, secret: SecretStr, *, kept: timedelta) -> None:
        self._engine = _statement_by_statement(engine)
        self._secret = secret
        self._kept = kept

    async def add(self, who: str, network: str, /, *, now: datetime) -> None:
        row = insert(networks).values(
            fingerprint=_fingerprint(self._secret, f"{who} {network}"), signed_in_at=now
        )
        upsert = row.on_conflict_do_update(
            index_elements=networks.primary_key,
            set_={"signed_in_at": now},
            where=networks.c.signed_in_at <= now - _WRITTEN_AGAIN_AFTER,
        ).returning(_UNFLUSHED)
        async with self._engine.connect() as connection:
            if (await connection.execute(upsert)).first() is not None:
                await _purge(connection, networks, networks.c.signed_in_at, now - self._kept)

    async def has(self, who: str, network: str, /, *, now: datetime) -> bool:
        known = exists().where(
            networks.c.fingerprint == _fingerprint(self._secret, f"{who} {network}"),
            networks.c.signed_in_at > now - self._kept,
        )
        async with self._engine.connect() as connection:
            return bool(await connection.scalar(select(known)))


def _statement_by_statement(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine with each statement a transaction of its own, in one round trip."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _fingerprint(secret: SecretStr, source: str) -> bytes:
    # Keyed, since a client may send the password as the name: the table must not reveal it.
    return hmac.digest(secret.get_secret_value().encode(), source.encode(), "sha256")


async def _purge(
    connection: AsyncConnection, table: Table, at: Column[Any], before: datetime
) -> None:
    over = (
        select(table.c.fingerprint)
        .where(at <= before)
        .order_by(at)
        .limit(_PURGED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(table).where(table.c.fingerprint.in_(over)))
