"""Which events the service consumes, and which use case handles each."""

from chassis.consuming.subscribers import EventSubscriber
from contracts.envelope import Envelope
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from users_service.application.create_onboarding_tasks import CreateOnboardingTasksHandler
from users_service.application.ports import UsersWork


def subscribers(
    create_onboarding_tasks: CreateOnboardingTasksHandler,
) -> list[EventSubscriber[UsersWork]]:
    async def create_for_new_user(
        work: UsersWork, event: UserSignedUpV1, _envelope: Envelope
    ) -> None:
        await create_onboarding_tasks(work, event.user_id)

    return [
        EventSubscriber(
            name="users.create-onboarding-tasks",
            topic=USERS_USER,
            handlers={UserSignedUpV1: create_for_new_user},
        )
    ]
