"""How often someone tried to sign in lately, counted in PostgreSQL for all processes alike."""

import hmac
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from users_service.adapters.tables import sign_in_attempts as table
from users_service.application.ports import Attempts

# More than an attempt adds, so that the table falls back to the rows of one window.
_PURGED_AT_ONCE: Final = 10


class PostgresSignInAttempts:
    """Each count is one upsert in a short READ COMMITTED transaction.

    Those who come at once queue on the row's lock, and no command's transaction can conflict.
    """

    def __init__(self, engine: AsyncEngine, secret: SecretStr) -> None:
        self._engine = engine
        self._secret = secret.get_secret_value().encode()

    async def count(self, whose: str, /, *, now: datetime, window: timedelta) -> Attempts:
        row = insert(table).values(
            fingerprint=self._fingerprint(whose), count=1, window_began_at=now
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

    async def uncount(self, whose: str, /, counted: Attempts) -> None:
        less = (
            update(table)
            .where(
                table.c.fingerprint == self._fingerprint(whose),
                table.c.window_began_at == counted.window_began_at,
            )
            .values(count=func.greatest(table.c.count - 1, 0))
        )
        async with self._engine.begin() as connection:
            await connection.execute(less)

    def _fingerprint(self, whose: str) -> bytes:
        # Keyed: who confuses the two fields must not find the password in our table.
        return hmac.digest(self._secret, whose.encode(), "sha256")


async def _purge(connection: AsyncConnection, before: datetime) -> None:
    over = (
        select(table.c.fingerprint)
        .where(table.c.window_began_at <= before)
        .order_by(table.c.window_began_at)
        .limit(_PURGED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(table).where(table.c.fingerprint.in_(over)))
