from chassis.correlation import new_id
from chassis.testing import Clock
from users_service.adapters.in_memory import InMemoryTransactor, InMemoryViews
from users_service.application.create_onboarding_tasks import CreateOnboardingTasksHandler


class TestCreateOnboardingTasks:
    async def test_the_user_gets_both_and_each_is_published(self) -> None:
        transactor = InMemoryTransactor(Clock())
        create = CreateOnboardingTasksHandler(new_id, Clock())
        user_id = new_id()

        await transactor(lambda work: create(work, user_id))

        page = await InMemoryViews(transactor).tasks_of(user_id, before=None, limit=10)
        assert {task.name for task in page.items} == {
            "Create your GitHub account",
            "Review the project documentation",
        }
        rows = transactor.stored.outbox
        assert [(row["aggregatetype"], row["type"], row["sequence"]) for row in rows] == [
            ("users.task", "users.task-created.v1", 1)
        ] * 2
        assert {row["aggregateid"] for row in rows} == {str(each.id) for each in page.items}
