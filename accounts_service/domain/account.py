"""An account: one user's money in one currency, and every change of it.

A transaction changes one account, with the house's account of cash on its other side, or two. Its
changes add up to zero, and are all of one currency.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self
from uuid import UUID

from accounts_service.domain.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotEmpty,
    AccountNotFrozen,
    AmountNotPositive,
    BalanceTooLarge,
    HoldNotOpen,
    InsufficientFunds,
    MoreThanHeld,
    OtherCurrency,
    SameAccount,
    TooManyHolds,
)
from accounts_service.domain.hold import MOST_OPEN_HOLDS, Hold, HoldState
from accounts_service.domain.money import MOST_MINOR_UNITS, Currency, Money
from chassis.domain import Aggregate, DomainEvent

FIRST_DESCRIPTION: Final = "Initial"
REVERSAL_DESCRIPTION: Final = "Reversal of a transfer"


class State(StrEnum):
    """Whether money may come in (open, frozen) and go out (open)."""

    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"


class TransactionKind(StrEnum):
    """Why money moved."""

    OPENING = "opening"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    TRANSFER = "transfer"
    REVERSAL = "reversal"
    CAPTURE = "capture"

    @property
    def is_with_the_house(self) -> bool:
        """Whether the other side is the house's account of cash."""
        return self in {TransactionKind.DEPOSIT, TransactionKind.WITHDRAWAL}


@dataclass(frozen=True, slots=True)
class Transaction:
    """A line of an account's statement: one change of the balance, and the balance after it.

    ``id`` is the same in all accounts that take part; ``position`` counts this account's lines.
    Amounts are minor units of the account's currency.
    """

    id: UUID
    position: int
    kind: TransactionKind
    delta: int
    balance_after: int
    description: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Posting:
    """What the lines of a new transaction have in common."""

    id: UUID
    kind: TransactionKind
    description: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that was made."""

    id: UUID
    payer_id: UUID
    payee_id: UUID
    minor_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChanged(DomainEvent):
    """Something happened to an account."""

    account_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOpened(AccountChanged):
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionCreated(AccountChanged):
    """The balance changed. The transaction of the opening is told by :class:`AccountOpened`."""

    currency: str
    transaction: Transaction
    reverses: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReversed(AccountChanged):
    transfer_id: UUID
    reversal_id: UUID
    by: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlaced(AccountChanged):
    currency: str
    hold_id: UUID
    payee_id: UUID
    minor_units: int
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldCaptured(AccountChanged):
    currency: str
    hold_id: UUID
    transaction_id: UUID
    minor_units: int
    by: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReleased(AccountChanged):
    hold_id: UUID
    by: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldExpired(AccountChanged):
    hold_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen(AccountChanged):
    by: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfrozen(AccountChanged):
    by: UUID
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(AccountChanged):
    pass


class Account(Aggregate):
    """One user's account. Earlier transactions are not loaded, since no rule needs them.

    What can be spent is the balance without what is held.

    :ivar moved_at: the time of the latest transaction or event; a later one is never earlier
    """

    def __init__(
        self,
        id_: UUID,
        *,
        user_id: UUID,
        currency: Currency,
        opened_at: datetime,
        moved_at: datetime,
        balance: int,
        last_position: int,
        state: State = State.OPEN,
        version: int = 0,
        sequence: int = 0,
    ) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.user_id = user_id
        self.currency = currency
        self.opened_at = opened_at
        self.moved_at = moved_at
        self.balance = balance
        self.last_position = last_position
        self.state = state
        self._new_transactions: list[Transaction] = []
        self._holds: dict[UUID, Hold] = {}
        self._changed_holds: dict[UUID, Hold] = {}

    @classmethod
    def open(
        cls, id_: UUID, *, user_id: UUID, currency: Currency, transaction_id: UUID, now: datetime
    ) -> Self:
        """Open an account. Its first transaction has the amount 0."""
        account = cls(
            id_,
            user_id=user_id,
            currency=currency,
            opened_at=now,
            moved_at=now,
            balance=0,
            last_position=0,
        )
        opening = Posting(transaction_id, TransactionKind.OPENING, FIRST_DESCRIPTION, now)
        account._post(0, opening)
        account._record(
            AccountOpened(account_id=id_, user_id=user_id, currency=currency.code, occurred_at=now)
        )
        return account

    def deposit(self, amount: Money, posting: Posting) -> Transaction:
        """Bring money in, from the house's account.

        :raises AccountsError: a rule refuses it, and nothing has changed
        """
        self.may_receive(amount)
        return self._move(amount.minor_units, posting)

    def withdraw(self, amount: Money, posting: Posting) -> Transaction:
        """Take money out, to the house's account.

        :raises AccountsError: a rule refuses it, and nothing has changed
        """
        self.may_spend(amount)
        return self._move(-amount.minor_units, posting)

    def transfer(self, amount: Money, payee: "Account", posting: Posting) -> Transaction:
        """Move money to another account; return this account's line.

        :raises AccountsError: a rule refuses it, and nothing has changed
        """
        if payee.id == self.id:
            raise SameAccount
        self.may_spend(amount)
        payee.may_receive(amount)
        paid, _received = self._move_to(payee, amount.minor_units, posting)
        return paid

    def reverse(
        self, transfer: Transfer, payee: "Account", posting: Posting, *, by: UUID, reason: str
    ) -> Transaction:
        """Bring back what a transfer took from this account; return this account's line.

        It takes money from a frozen account too: an operator freezes an account, and then returns
        what came in by fraud.

        :raises AccountsError: a rule refuses it, and nothing has changed
        """
        amount = Money(transfer.minor_units, self.currency)
        payee.has(amount)
        self.may_receive(amount)
        _given_back, returned = payee._move_to(  # noqa: SLF001 - another of the same class
            self, amount.minor_units, posting, reverses=transfer.id
        )
        self._record(
            TransferReversed(
                account_id=self.id,
                user_id=self.user_id,
                transfer_id=transfer.id,
                reversal_id=posting.id,
                by=by,
                reason=reason,
                occurred_at=self.moved_at,
            )
        )
        return returned

    @property
    def holds(self) -> Mapping[UUID, Hold]:
        """The open holds, by their ids."""
        return MappingProxyType(self._holds)

    @property
    def held(self) -> int:
        """What the open holds keep, in minor units."""
        return sum(hold.minor_units for hold in self._holds.values())

    @property
    def next_expiry(self) -> datetime | None:
        """When the first of the open holds expires; None: there is none."""
        return min((hold.expires_at for hold in self._holds.values()), default=None)

    @property
    def available(self) -> int:
        """What can be spent, in minor units."""
        return self.balance - self.held

    def with_holds(self, holds: Iterable[Hold], now: datetime) -> None:
        """Take over the open holds that are stored; those whose time is over expire.

        So no rule counts one that has expired, whether or not a timer has come to it.
        """
        self._holds.update({hold.id: hold for hold in holds})
        for hold in list(self._holds.values()):
            if hold.expires_at <= now:
                self._end(hold, HoldState.EXPIRED)
                self._record(
                    HoldExpired(
                        account_id=self.id,
                        user_id=self.user_id,
                        hold_id=hold.id,
                        occurred_at=self._at(now),
                    )
                )

    def place_hold(self, hold: Hold, payee: "Account") -> None:
        """Keep money for a payee.

        :raises AccountsError: a rule refuses it, and nothing has changed
        """
        if payee.id == self.id:
            raise SameAccount
        amount = Money(hold.minor_units, self.currency)
        self.may_spend(amount)
        payee.may_receive(amount)
        if len(self._holds) >= MOST_OPEN_HOLDS:
            raise TooManyHolds(MOST_OPEN_HOLDS)
        self._holds[hold.id] = self._changed_holds[hold.id] = hold
        self._record(
            HoldPlaced(
                account_id=self.id,
                user_id=self.user_id,
                currency=self.currency.code,
                hold_id=hold.id,
                payee_id=hold.payee_id,
                minor_units=hold.minor_units,
                expires_at=hold.expires_at,
                occurred_at=self._at(hold.placed_at),
            )
        )

    def capture(
        self,
        hold_id: UUID,
        payee: "Account",
        amount: Money | None,
        *,
        transaction_id: UUID,
        by: UUID,
        now: datetime,
    ) -> Transaction:
        """Move what is held, or a part of it, to the payee; the rest is free again.

        :param amount: None: all of it
        :return: the payee's line, with the description of the hold
        :raises AccountsError: a rule refuses it, and nothing has changed
        """
        self._is_open()
        hold = self._open_hold(hold_id)
        amount = amount or Money(hold.minor_units, self.currency)
        self._is_an_amount(amount)
        if amount.minor_units > hold.minor_units:
            raise MoreThanHeld
        payee.may_receive(amount)
        hold.captured = amount.minor_units
        self._end(hold, HoldState.CAPTURED)
        posting = Posting(transaction_id, TransactionKind.CAPTURE, hold.description, now)
        _paid, received = self._move_to(payee, amount.minor_units, posting)
        self._record(
            HoldCaptured(
                account_id=self.id,
                user_id=self.user_id,
                currency=self.currency.code,
                hold_id=hold_id,
                transaction_id=transaction_id,
                minor_units=amount.minor_units,
                by=by,
                occurred_at=self.moved_at,
            )
        )
        return received

    def release(self, hold_id: UUID, *, by: UUID, now: datetime) -> Hold:
        """Let what is held be free again.

        :raises HoldNotOpen: it has ended before
        """
        hold = self._open_hold(hold_id)
        self._end(hold, HoldState.RELEASED)
        self._record(
            HoldReleased(
                account_id=self.id,
                user_id=self.user_id,
                hold_id=hold_id,
                by=by,
                occurred_at=self._at(now),
            )
        )
        return hold

    @property
    def has_changed_holds(self) -> bool:
        """Whether a hold was placed or has ended since the account was loaded."""
        return bool(self._changed_holds)

    def take_changed_holds(self) -> Iterator[Hold]:
        """Return the holds that were placed or have ended; each is returned once."""
        changed, self._changed_holds = self._changed_holds, {}
        yield from changed.values()

    def freeze(self, *, by: UUID, reason: str, now: datetime) -> None:
        """Let no money go out.

        :raises AccountFrozen: it is frozen already
        :raises AccountClosed: none goes out of it
        """
        self._is_not_closed()
        if self.state is State.FROZEN:
            raise AccountFrozen
        self.state = State.FROZEN
        self._record(
            Frozen(
                account_id=self.id,
                user_id=self.user_id,
                by=by,
                reason=reason,
                occurred_at=self._at(now),
            )
        )

    def unfreeze(self, *, by: UUID, reason: str, now: datetime) -> None:
        """Let money go out again.

        :raises AccountNotFrozen: it is not frozen
        """
        if self.state is not State.FROZEN:
            raise AccountNotFrozen
        self.state = State.OPEN
        self._record(
            Unfrozen(
                account_id=self.id,
                user_id=self.user_id,
                by=by,
                reason=reason,
                occurred_at=self._at(now),
            )
        )

    def close(self, now: datetime) -> None:
        """Close the account for ever.

        :raises AccountsError: it is closed or frozen, or has money
        """
        self._is_open()
        if self.balance:
            raise AccountNotEmpty
        self.state = State.CLOSED
        self._record(Closed(account_id=self.id, user_id=self.user_id, occurred_at=self._at(now)))

    def has(self, amount: Money) -> None:
        """Check that so much money is there.

        :raises AccountsError: it is not, or it is no amount that can be moved
        """
        self._is_an_amount(amount)
        self._is_not_closed()
        if self.available < amount.minor_units:
            raise InsufficientFunds

    def may_spend(self, amount: Money) -> None:
        """Check that so much may go out.

        :raises AccountsError: it may not
        """
        self._is_open()
        self.has(amount)

    def may_receive(self, amount: Money) -> None:
        """Check that so much may come in.

        :raises AccountsError: it may not
        """
        self._is_an_amount(amount)
        self._is_not_closed()
        if self.balance + amount.minor_units > MOST_MINOR_UNITS:
            raise BalanceTooLarge

    def take_transactions(self) -> Iterator[Transaction]:
        """Return the new transactions, oldest first; each is returned once."""
        posted, self._new_transactions = self._new_transactions, []
        yield from posted

    def _is_not_closed(self) -> None:
        if self.state is State.CLOSED:
            raise AccountClosed

    def _is_open(self) -> None:
        self._is_not_closed()
        if self.state is State.FROZEN:
            raise AccountFrozen

    def _is_an_amount(self, amount: Money) -> None:
        if amount.currency != self.currency:
            raise OtherCurrency
        if amount.minor_units <= 0:
            raise AmountNotPositive

    def _open_hold(self, hold_id: UUID) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None:
            raise HoldNotOpen
        return hold

    def _end(self, hold: Hold, state: HoldState) -> None:
        hold.state = state
        del self._holds[hold.id]
        self._changed_holds[hold.id] = hold

    def _move_to(
        self, payee: "Account", minor_units: int, posting: Posting, reverses: UUID | None = None
    ) -> tuple[Transaction, Transaction]:
        """Return this account's line and the payee's."""
        # One time for both lines, and for neither account an earlier one than it has.
        self.moved_at = payee.moved_at = max(self.moved_at, payee.moved_at)
        received = payee._move(minor_units, posting, reverses)  # noqa: SLF001 - of the same class
        return self._move(-minor_units, posting, reverses), received

    def _move(self, delta: int, posting: Posting, reverses: UUID | None = None) -> Transaction:
        transaction = self._post(delta, posting)
        self._record(
            TransactionCreated(
                account_id=self.id,
                user_id=self.user_id,
                currency=self.currency.code,
                transaction=transaction,
                reverses=reverses,
                occurred_at=transaction.occurred_at,
            )
        )
        return transaction

    def _post(self, delta: int, posting: Posting) -> Transaction:
        self.balance += delta
        self.last_position += 1
        transaction = Transaction(
            posting.id,
            self.last_position,
            posting.kind,
            delta,
            self.balance,
            posting.description,
            self._at(posting.now),
        )
        self._new_transactions.append(transaction)
        return transaction

    def _at(self, now: datetime) -> datetime:
        """Return the time of what happens now."""
        # The clocks of two processes differ; the order of what happens to an account does not.
        self.moved_at = max(self.moved_at, now)
        return self.moved_at
