"""Place a hold on money, capture or release it, and let it expire."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

from accounts_service.application.ports import AccountsWork, Posted
from accounts_service.application.recipients import account_of
from accounts_service.domain.account import Account, Posting, TransactionKind
from accounts_service.domain.errors import (
    AccountNotFound,
    HoldNotFound,
    NotThePayee,
    UnknownRecipient,
)
from accounts_service.domain.hold import Hold
from accounts_service.domain.money import Money
from chassis.timers.timer import DueTimer, Timer


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """What the payer asks for; the amount is decimal text.

    :ivar to: the payee's account, or the username of its owner
    """

    account_id: UUID
    to: UUID | str
    amount: str
    description: str
    expires_in: timedelta


@dataclass(frozen=True, slots=True)
class Actor:
    """Who captures or releases: the payee, or an operator."""

    user_id: UUID
    operator: bool


class HoldExpiry(Timer):
    """The time of a hold is over. Everyone who loads the account sees it; this cleans up."""

    kind: ClassVar[str] = "accounts.hold-expiry"

    hold_id: UUID


class PlaceHoldHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(
        self, work: AccountsWork, owner: UUID, command: PlaceHold
    ) -> tuple[Hold, Account]:
        """Return the hold, and the payer's account with it.

        :raises DomainError: a rule refuses it
        """
        payee_id = await account_of(work, command.to)
        accounts = await work.accounts.load([command.account_id, payee_id])
        payer, payee = accounts.get(command.account_id), accounts.get(payee_id)
        if payer is None or payer.user_id != owner:
            raise AccountNotFound
        if payee is None:
            raise UnknownRecipient
        amount = Money.parse(command.amount, payer.currency)
        now = self._now()
        hold = Hold(
            id=self._new_id(),
            account_id=payer.id,
            payee_id=payee.id,
            minor_units=amount.minor_units,
            description=command.description,
            placed_at=now,
            expires_at=now + command.expires_in,
        )
        payer.place_hold(hold, amount, payee)
        work.accounts.save(payer)
        work.timers.schedule(hold.expires_at, HoldExpiry(hold_id=hold.id), subject=payer.id)
        return hold, payer


class EndHoldHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def capture(
        self, work: AccountsWork, actor: Actor, hold_id: UUID, amount: str | None
    ) -> Posted:
        """Return the payee's transaction, and the payee's account after it.

        :param amount: decimal text; None: all that is held
        :raises DomainError: a rule refuses it
        """
        payer, payee = await self._parties(work, actor, hold_id)
        captured = None if amount is None else Money.parse(amount, payer.currency)
        hold = payer.holds.get(hold_id)
        posting = Posting(
            self._new_id(),
            TransactionKind.CAPTURE,
            hold.description if hold else "",
            self._now(),
        )
        transaction = payer.capture(hold_id, payee, captured, posting, by=actor.user_id)
        work.accounts.save(payer)
        work.accounts.save(payee)
        return Posted.of(payee, transaction)

    async def release(
        self, work: AccountsWork, actor: Actor, hold_id: UUID
    ) -> tuple[Hold, Account]:
        """Let what is held be free again; return the hold, and the payer's account without it.

        :raises DomainError: a rule refuses it
        """
        payer, _payee = await self._parties(work, actor, hold_id)
        hold = payer.release(hold_id, by=actor.user_id, now=self._now())
        work.accounts.save(payer)
        return hold, payer

    async def _parties(
        self, work: AccountsWork, actor: Actor, hold_id: UUID
    ) -> tuple[Account, Account]:
        parties = await work.holds.find(hold_id)
        if parties is None:
            raise HoldNotFound
        accounts = await work.accounts.load([parties.payer_id, parties.payee_id])
        payer, payee = accounts[parties.payer_id], accounts[parties.payee_id]
        if not actor.operator and actor.user_id != payee.user_id:
            raise NotThePayee if actor.user_id == payer.user_id else HoldNotFound
        return payer, payee


async def expire_holds(work: AccountsWork, _what: HoldExpiry, due: DueTimer) -> None:
    """Write what has expired of an account's holds."""
    accounts = await work.accounts.load([due.subject])
    for account in accounts.values():
        if account.has_changed_holds:
            work.accounts.save(account)
