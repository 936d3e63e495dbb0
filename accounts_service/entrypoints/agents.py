"""Which events the service consumes, and which use case handles each."""

from accounts_service.application.know_owner import know_owner
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

    async def know_new_user(work: AccountsWork, event: UserSignedUpV1, _envelope: Envelope) -> None:
        await know_owner(work, event.user_id, event.username)

    return [
        EventSubscriber(
            name="accounts.open-account",
            topic=USERS_USER,
            handlers={UserSignedUpV1: open_for_new_user},
        ),
        # Apart from the opening: where that is parked, the user is known all the same.
        EventSubscriber(
            name="accounts.know-owners",
            topic=USERS_USER,
            handlers={UserSignedUpV1: know_new_user},
        ),
    ]
