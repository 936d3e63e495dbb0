"""Which events the service consumes, and which use case handles each."""

from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.ports import AccountsWork
from chassis.consuming.subscribers import EventSubscriber
from contracts.envelope import Envelope
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1


def subscribers(open_account: OpenAccountHandler) -> list[EventSubscriber[AccountsWork]]:
    async def open_for_new_user(
        work: AccountsWork, event: UserSignedUpV1, _envelope: Envelope
    ) -> None:
        await open_account(work, event.user_id)

    return [
        EventSubscriber(
            name="accounts.open-account",
            topic=USERS_USER,
            handlers={UserSignedUpV1: open_for_new_user},
        )
    ]
