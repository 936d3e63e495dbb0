"""Know the users by name, so that money can be sent to a name."""

from uuid import UUID

from accounts_service.application.ports import AccountsWork


async def know_owner(work: AccountsWork, user_id: UUID, username: str) -> None:
    """Keep a user's name; a name that is known stays as it is."""
    work.owners.add(user_id, username)
