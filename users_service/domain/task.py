"""A task: something one user is to do."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from chassis.domain import Aggregate, DomainEvent
from users_service.domain.errors import InvalidTaskName

TASK_NAME_MAX_CHARS: Final = 50

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class TaskName:
    """What is to be done, in one line of at most 50 characters."""

    value: str

    @classmethod
    def parse(cls, text: str) -> "TaskName":
        name = text.strip()
        if not 1 <= len(name) <= TASK_NAME_MAX_CHARS or _CONTROL.search(name):
            raise InvalidTaskName(f"one line of 1 to {TASK_NAME_MAX_CHARS} characters")
        return cls(name)


@dataclass(frozen=True, slots=True)
class TaskCreated(DomainEvent):
    task_id: UUID
    name: TaskName
    assignee_id: UUID


class Task(Aggregate):
    """Something for its assignee to do."""

    def __init__(
        self,
        id_: UUID,
        *,
        name: TaskName,
        assignee_id: UUID,
        created_at: datetime,
        version: int = 0,
        sequence: int = 0,
    ) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.name = name
        self.assignee_id = assignee_id
        self.created_at = created_at

    @classmethod
    def create(cls, id_: UUID, *, name: TaskName, assignee_id: UUID, now: datetime) -> "Task":
        task = cls(id_, name=name, assignee_id=assignee_id, created_at=now)
        task._record(TaskCreated(id_, name, assignee_id, occurred_at=now))
        return task
