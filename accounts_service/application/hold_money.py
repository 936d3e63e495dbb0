"""Place a hold on money, capture or release it, and let it expire."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

from accounts_service.application.parties import payer_and_payee
from accounts_service.application.ports import AccountsWork, Posted
from accounts_service.domain.account import Account
from accounts_service.domain.errors import HoldNotFound, NotThePayee
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
    def __init__(self, new_id: Callable[[], UUID]) -> None:
        self._new_id = new_id

    async def __call__(
        self, work: AccountsWork, owner: UUID, command: PlaceHold
    ) -> tuple[Hold, Account]:
        """Return the hold, and the payer's account with it.

        :raises DomainError: a rule refuses it
        """
        payer, payee = await payer_and_payee(work, owner, command.account_id, command.to)
        amount = Money.parse(command.amount, payer.currency)
        # Not this process's clock: where that is behind, the hold would be over from the start.
        now = await work.holds.now()
        hold = Hold(
            id=self._new_id(),
            account_id=payer.id,
            payee_id=payee.id,
            minor_units=amount.minor_units,
            description=command.description,
            placed_at=now,
            expires_at=now + command.expires_in,
        )
        payer.place_hold(hold, payee)
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
        transaction = payer.capture(
            hold_id,
            payee,
            captured,
            transaction_id=self._new_id(),
            by=actor.user_id,
            now=self._now(),
        )
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


async def expire_holds(work: AccountsWork, what: HoldExpiry, due: DueTimer) -> None:
    """Write what has expired of an account's holds."""
    accounts = await work.accounts.load([due.subject])
    for account in accounts.values():
        if account.has_changed_holds:
            work.accounts.save(account)
        if (still_open := account.holds.get(what.hold_id)) is not None:
            # The database's clock was set back after the timer was due.
            work.timers.schedule(still_open.expires_at, what, subject=due.subject)
