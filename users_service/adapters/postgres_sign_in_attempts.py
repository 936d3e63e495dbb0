"""Recent sign-in attempts, counted in PostgreSQL for all processes together."""

import hmac
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from users_service.adapters.tables import sign_in_attempts as table
from users_service.application.ports import Attempts

# More than one attempt adds, so that the table shrinks to the rows of one window.
_PURGED_AT_ONCE: Final = 10


class PostgresSignInAttempts:
    """Each count is one upsert in a short READ COMMITTED transaction.

    Concurrent counts of one source wait for the row's lock; they conflict with no command.
    """

    def __init__(self, engine: AsyncEngine, secret: SecretStr) -> None:
        self._engine = engine
        self._secret = secret.get_secret_value().encode()

    async def count(self, source: str, /, *, now: datetime, window: timedelta) -> Attempts:
        row = insert(table).values(
            fingerprint=self._fingerprint(source), count=1, window_began_at=now
        )
        is_over = table.c.window_began_at <= now - window
        upsert = row.on_conflict_do_update(
            index_elements=table.primary_key,
            set_={
                "count": case((is_over, 1), else_=table.c.count + 1),
                "window_began_at": case((is_over, now), else_=table.c.window_began_at),
            },
        ).returning(table.c.count, table.c.window_began_at)
        async with self._engine.begin() as connection:
            counted = (await connection.execute(upsert)).one()
            await _purge(connection, now - window)
        return Attempts(*counted)

    async def uncount(self, source: str, /, counted: Attempts) -> None:
        less = (
            update(table)
            .where(
                table.c.fingerprint == self._fingerprint(source),
                table.c.window_began_at == counted.window_began_at,
            )
            .values(count=func.greatest(table.c.count - 1, 0))
        )
        async with self._engine.begin() as connection:
            await connection.execute(less)

    def _fingerprint(self, source: str) -> bytes:
        # Keyed, since a client may send the password as the name: the table must not reveal it.
        return hmac.digest(self._secret, source.encode(), "sha256")


async def _purge(connection: AsyncConnection, before: datetime) -> None:
    over = (
        select(table.c.fingerprint)
        .where(table.c.window_began_at <= before)
        .order_by(table.c.window_began_at)
        .limit(_PURGED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(table).where(table.c.fingerprint.in_(over)))
