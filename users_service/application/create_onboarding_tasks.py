"""Create the onboarding tasks: what every new user is to do first."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from users_service.application.ports import UsersWork
from users_service.domain.task import Task, TaskName

ONBOARDING_TASKS: Final = (
    TaskName("Create your GitHub account"),
    TaskName("Review the project documentation"),
)


class CreateOnboardingTasksHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: UsersWork, user_id: UUID) -> None:
        for name in ONBOARDING_TASKS:
            task = Task.create(self._new_id(), name=name, assignee_id=user_id, now=self._now())
            work.tasks.save(task)
