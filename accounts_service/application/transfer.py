"""Transfer money to another account, and reverse a transfer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from accounts_service.application.parties import payer_and_payee
from accounts_service.application.ports import AccountsWork, Posted
from accounts_service.domain.account import REVERSAL_DESCRIPTION, Posting, TransactionKind
from accounts_service.domain.errors import AlreadyReversed, TransferNotFound
from accounts_service.domain.money import Money


@dataclass(frozen=True, slots=True)
class TransferMoney:
    """What the payer asks for; the amount is decimal text.

    :ivar to: the account, or the username of its owner
    """

    from_account: UUID
    to: UUID | str
    amount: str
    description: str


class TransferHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: AccountsWork, owner: UUID, command: TransferMoney) -> Posted:
        """Return the payer's transaction, and the payer's account after it.

        :raises DomainError: a rule refuses it
        """
        payer, payee = await payer_and_payee(work, owner, command.from_account, command.to)
        amount = Money.parse(command.amount, payer.currency)
        posting = Posting(
            self._new_id(), TransactionKind.TRANSFER, command.description, self._now()
        )
        transaction = payer.transfer(amount, payee, posting)
        work.accounts.save(payer)
        work.accounts.save(payee)
        return Posted.of(payer, transaction)


class ReverseTransferHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(
        self, work: AccountsWork, transfer_id: UUID, *, by: UUID, reason: str
    ) -> Posted:
        """Return the payer's transaction that brings the money back, and the payer's account.

        :raises DomainError: there is no such transfer, it was reversed, or a rule refuses it
        """
        transfer = await work.transfers.find(transfer_id)
        if transfer is None:
            raise TransferNotFound
        accounts = await work.accounts.load([transfer.payer_id, transfer.payee_id])
        # With the accounts locked, so no other reversal of it is under way.
        earlier = await work.transfers.reversal_of(transfer_id)
        if earlier is not None:
            raise AlreadyReversed(earlier)
        payer, payee = accounts[transfer.payer_id], accounts[transfer.payee_id]
        posting = Posting(
            self._new_id(), TransactionKind.REVERSAL, REVERSAL_DESCRIPTION, self._now()
        )
        transaction = payer.reverse(transfer, payee, posting, by=by, reason=reason)
        work.transfers.mark_reversed(transfer_id, by=posting.id)
        work.accounts.save(payer)
        work.accounts.save(payee)
        return Posted.of(payer, transaction)
