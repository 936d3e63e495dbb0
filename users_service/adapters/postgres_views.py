"""Reads from PostgreSQL, outside of any unit of work."""

from typing import Final
from uuid import UUID

from sqlalchemy import Integer, bindparam, select

from chassis.persistence.database import Database
from chassis.web.paging import Page, page_of
from users_service.adapters.tables import tasks, users
from users_service.application.ports import Credentials, Profile, TaskView
from users_service.domain.errors import UserNotFound
from users_service.domain.user import Role
from users_service.domain.values import EmailAddress, PasswordHash, Username

_credentials = select(users.c.id, users.c.password_hash, users.c.active, users.c.roles)
_BY_USERNAME: Final = _credentials.where(users.c.username == bindparam("login"))
_BY_EMAIL: Final = _credentials.where(users.c.email == bindparam("login"))
_PROFILE: Final = select(
    users.c.id, users.c.username, users.c.email, users.c.alias, users.c.roles, users.c.created_at
).where(users.c.id == bindparam("user_id"))
_TASKS: Final = (
    select(tasks.c.id, tasks.c.name, tasks.c.created_at)
    .where(tasks.c.assignee_id == bindparam("user_id"))
    .order_by(tasks.c.id.desc())
    .limit(bindparam("most", type_=Integer))
)
_TASKS_BEFORE: Final = _TASKS.where(tasks.c.id < bindparam("before"))


class PostgresViews:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def credentials_of(self, login: Username | EmailAddress, /) -> Credentials | None:
        query = _BY_USERNAME if isinstance(login, Username) else _BY_EMAIL
        async with self._database.connect() as connection:
            row = (await connection.execute(query, {"login": login.value})).one_or_none()
        if row is None:
            return None
        roles = frozenset(map(Role, row.roles.split()))
        return Credentials(row.id, PasswordHash(row.password_hash), row.active, roles)

    async def profile_of(self, user_id: UUID, /) -> Profile:
        async with self._database.connect() as connection:
            row = (await connection.execute(_PROFILE, {"user_id": user_id})).one_or_none()
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
        query = _TASKS if before is None else _TASKS_BEFORE
        values = {"user_id": user_id, "most": limit + 1, "before": before}
        async with self._database.connect() as connection:
            found = await connection.execute(query, values)
        tasks_found = [TaskView(row.id, row.name, row.created_at) for row in found]
        return page_of(tasks_found, limit, key=lambda task: task.id)
