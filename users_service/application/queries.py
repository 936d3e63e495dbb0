"""What a user may see: themselves and their tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from users_service.application.ports import Profile, TaskView, Views
from users_service.domain.errors import UserNotFound


class ProfileOf:
    def __init__(self, views: Views) -> None:
        self._views = views

    async def __call__(self, user_id: UUID) -> Profile:
        """Return the user's profile.

        :raises UserNotFound: there is no such user
        """
        profile = await self._views.profile_of(user_id)
        if profile is None:
            raise UserNotFound
        return profile


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks, newest first; ``next`` is where the next page begins, if there is one."""

    tasks: Sequence[TaskView]
    next: UUID | None


class TasksOf:
    def __init__(self, views: Views) -> None:
        self._views = views

    async def __call__(self, user_id: UUID, *, before: UUID | None, limit: int) -> TaskPage:
        """Return up to ``limit`` of the user's tasks, older than the task ``before``."""
        # One more than asked for tells whether there is a next page.
        found = await self._views.tasks_of(user_id, before=before, limit=limit + 1)
        tasks = found[:limit]
        return TaskPage(tasks, tasks[-1].id if len(found) > limit else None)
