"""Reads from PostgreSQL, outside of any unit of work."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.web.paging import Page, page_of
from users_service.adapters.tables import tasks, users
from users_service.application.ports import Credentials, Profile, TaskView
from users_service.domain.errors import UserNotFound
from users_service.domain.user import Role
from users_service.domain.values import EmailAddress, PasswordHash, Username


class PostgresViews:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def credentials_of(self, login: Username | EmailAddress, /) -> Credentials | None:
        column = users.c.username if isinstance(login, Username) else users.c.email
        query = select(users.c.id, users.c.password_hash, users.c.active, users.c.roles)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query.where(column == login.value))).one_or_none()
        if row is None:
            return None
        roles = frozenset(map(Role, row.roles.split()))
        return Credentials(row.id, PasswordHash(row.password_hash), row.active, roles)

    async def profile_of(self, user_id: UUID, /) -> Profile:
        query = select(
            users.c.id,
            users.c.username,
            users.c.email,
            users.c.alias,
            users.c.roles,
            users.c.created_at,
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(query.where(users.c.id == user_id))).one_or_none()
        if row is None:
            raise UserNotFound
        return Profile(
            row.id,
            row.username,
            row.email,
            row.alias,
            frozenset(map(Role, row.roles.split())),
            row.created_at,
        )

    async def tasks_of(
        self, user_id: UUID, /, *, before: UUID | None, limit: int
    ) -> Page[TaskView, UUID]:
        query = (
            select(tasks.c.id, tasks.c.name, tasks.c.created_at)
            .where(tasks.c.assignee_id == user_id)
            .order_by(tasks.c.id.desc())
            .limit(limit + 1)
        )
        if before is not None:
            query = query.where(tasks.c.id < before)
        async with self._engine.connect() as connection:
            found = await connection.execute(query)
        tasks_found = [TaskView(row.id, row.name, row.created_at) for row in found]
        return page_of(tasks_found, limit, key=lambda task: task.id)
