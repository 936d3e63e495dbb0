"""Whose account a payer means."""

from uuid import UUID

from accounts_service.application.ports import AccountsWork
from accounts_service.domain.errors import AccountNotOpenYet, UnknownRecipient


async def account_of(work: AccountsWork, to: UUID | str) -> UUID:
    """Return the id of the recipient's account, which is not locked.

    :param to: the account's id, or the username of its owner
    :raises UnknownRecipient: nobody has the name
    :raises AccountNotOpenYet: the user has signed up, and has no account yet
    """
    if isinstance(to, UUID):
        return to
    owner = await work.owners.find(to)
    if owner is None:
        raise UnknownRecipient
    if owner.account_id is None:
        raise AccountNotOpenYet
    return owner.account_id
