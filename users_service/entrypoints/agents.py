"""Which events the service takes, and what it does with each."""

from chassis.consuming.subscribers import EventSubscriber
from contracts.envelope import Envelope
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from users_service.application.create_onboarding_tasks import (
    CreateOnboardingTasks,
    CreateOnboardingTasksHandler,
)
from users_service.application.ports import UsersWork


def subscribers(
    create_onboarding_tasks: CreateOnboardingTasksHandler,
) -> list[EventSubscriber[UsersWork]]:
    async def give_first_tasks(work: UsersWork, event: UserSignedUpV1, _envelope: Envelope) -> None:
        await create_onboarding_tasks(work, CreateOnboardingTasks(event.user_id))

    return [
        EventSubscriber(
            name="users.create-onboarding-tasks",
            topic=USERS_USER,
            handlers={UserSignedUpV1: give_first_tasks},
        )
    ]
