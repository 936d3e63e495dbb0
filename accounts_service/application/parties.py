"""The accounts that a command is about: the owner's, and the one that a payer means."""

from collections.abc import Mapping
from uuid import UUID

from accounts_service.application.ports import AccountsWork
from accounts_service.domain.account import Account
from accounts_service.domain.errors import AccountNotFound, AccountNotOpenYet, UnknownRecipient


def owned(accounts: Mapping[UUID, Account], account_id: UUID, owner: UUID) -> Account:
    """Return the owner's account.

    :raises AccountNotFound: it does not exist, or is somebody else's
    """
    account = accounts.get(account_id)
    if account is None or account.user_id != owner:
        raise AccountNotFound
    return account


async def payer_and_payee(
    work: AccountsWork, owner: UUID, payer_id: UUID, to: UUID | str
) -> tuple[Account, Account]:
    """Return the owner's account, and the recipient's.

    :param to: the recipient's account, or the username of its owner
    :raises AccountsError: one of them is not there
    """
    payee_id = await _account_of(work, to)
    # Both in one call, so that two transfers in opposite directions never wait for each other.
    accounts = await work.accounts.load([payer_id, payee_id])
    payer = owned(accounts, payer_id, owner)
    payee = accounts.get(payee_id)
    if payee is None:
        raise UnknownRecipient
    return payer, payee


async def _account_of(work: AccountsWork, to: UUID | str) -> UUID:
    if isinstance(to, UUID):
        return to
    owner = await work.owners.find(to)
    if owner is None:
        raise UnknownRecipient
    if owner.account_id is None:
        raise AccountNotOpenYet
    return owner.account_id
