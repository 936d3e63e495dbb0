from chassis.correlation import new_id
from users_service.adapters.in_memory import InMemoryTransactor, InMemoryViews
from users_service.application.create_onboarding_tasks import (
    CreateOnboardingTasks,
    CreateOnboardingTasksHandler,
)

from .people import Clock


class TestCreateOnboardingTasks:
    async def test_the_user_gets_both_and_each_is_told_of(self) -> None:
        transactor = InMemoryTransactor(Clock())
        create = CreateOnboardingTasksHandler(new_id, Clock())
        user_id = new_id()

        await transactor(lambda work: create(work, CreateOnboardingTasks(user_id)))

        tasks = await InMemoryViews(transactor).tasks_of(user_id, before=None, limit=10)
        assert {task.name for task in tasks} == {
            "Create your GitHub account",
            "Review the project documentation",
        }
        told = [(row.topic, row.type, row.sequence) for row in transactor.stored.outbox]
        assert told == [("users.task", "users.task-created.v1", 1)] * 2
        assert {row.subject for row in transactor.stored.outbox} == {str(t.id) for t in tasks}
