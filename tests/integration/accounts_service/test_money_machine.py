"""Whatever is asked for, in any order: PostgreSQL has what a small model has, and refuses alike."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any, Final, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.application.change_state import ChangeStateHandler
from accounts_service.application.hold_money import (
    Actor,
    EndHoldHandler,
    PlaceHold,
    PlaceHoldHandler,
)
from accounts_service.application.know_owner import know_owner
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.post_transaction import PostTransaction, PostTransactionHandler
from accounts_service.application.transfer import (
    ReverseTransferHandler,
    TransferHandler,
    TransferMoney,
)
from accounts_service.domain.account import Account, TransactionKind
from accounts_service.domain.errors import AlreadyReversed
from accounts_service.domain.money import MOST_MINOR_UNITS, Money
from chassis.correlation import new_id
from chassis.domain import DomainError
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Transactor

T = TypeVar("T")
Body = Callable[[PostgresAccountsWork], Coroutine[Any, Any, T]]

OPERATOR: Final = new_id()
# Less than the clock jumps, by which no hold is over: that is by PostgreSQL's clock.
EXPIRES_IN: Final = timedelta(minutes=30)
CURRENCIES_OF_ACCOUNTS: Final = ("USD", "USD", "USD", "EUR")

ACCOUNTS: Final = st.integers(0, len(CURRENCIES_OF_ACCOUNTS) - 1)
# Mostly what an account has, so that rules meet at their bounds; and more than any can have.
AMOUNTS: Final = st.sampled_from([1, 2, 3, 4, 5, 6] * 3 + [20, 0, -5, MOST_MINOR_UNITS])
RECIPIENTS: Final = st.sampled_from([0, 1, 2] * 4 + [3, "nobody", "newcomer"])


@dataclass
class Held:
    """A hold as the model has it."""

    id: UUID
    payer: "Modelled"
    payee: "Modelled"
    amount: int
    is_open: bool = True


@dataclass
class Transferred:
    """A transfer as the model has it."""

    id: UUID
    payer: "Modelled"
    payee: "Modelled"
    amount: int
    is_reversed: bool = False


@dataclass
class Modelled:
    """An account as the model has it: a few rules, and no database."""

    id: UUID
    user_id: UUID
    username: str
    currency: str
    state: str = "open"
    deltas: list[int] = field(default_factory=lambda: [0])
    holds: list[Held] = field(default_factory=list)

    @property
    def balance(self) -> int:
        return sum(self.deltas)

    @property
    def held(self) -> int:
        return sum(each.amount for each in self.holds if each.is_open)

    def refuses_to_change(self) -> str | None:
        return None if self.state == "open" else f"account-{self.state}"

    def refuses_out(self, amount: int, *, also_frozen: bool = False) -> str | None:
        if self.state == "closed" or (self.state == "frozen" and not also_frozen):
            return f"account-{self.state}"
        if amount <= 0:
            return "amount-not-positive"
        return "insufficient-funds" if self.balance - self.held < amount else None

    def refuses_in(self, amount: int, currency: str) -> str | None:
        if currency != self.currency:
            return "other-currency"
        if amount <= 0:
            return "amount-not-positive"
        if self.state == "closed":
            return "account-closed"
        return "balance-too-large" if self.balance + amount > MOST_MINOR_UNITS else None


class MoneyMachine(RuleBasedStateMachine):
    """Every command on a few accounts, in the model and on PostgreSQL."""

    def __init__(self, runner: asyncio.Runner, engine: Database) -> None:
        super().__init__()
        self._runner = runner
        self._engine = engine
        self._now = datetime.now(UTC)
        self._transact = Transactor(engine, self._open_work)
        self._post = PostTransactionHandler(new_id, self._clock)
        self._transfer = TransferHandler(new_id, self._clock)
        self._reverse = ReverseTransferHandler(new_id, self._clock)
        self._change = ChangeStateHandler(self._clock)
        self._place = PlaceHoldHandler(new_id)
        self._end = EndHoldHandler(new_id, self._clock)
        self._accounts = [self._opened(currency) for currency in CURRENCIES_OF_ACCOUNTS]
        self._transfers: list[Transferred] = []
        self._newcomer = f"u{new_id().hex}"
        self._run(lambda work: know_owner(work, new_id(), self._newcomer))

    @initialize(jumps=st.randoms(use_true_random=True))
    def there_is_money(self, jumps: Random) -> None:
        self._jumps = jumps
        for at in range(len(self._accounts)):
            self.deposit(at, 20)

    @rule(at=ACCOUNTS, amount=AMOUNTS)
    def deposit(self, at: int, amount: int) -> None:
        account = self._accounts[at]
        expected = account.refuses_in(amount, account.currency)
        command = PostTransaction(
            account.id, TransactionKind.DEPOSIT, decimal(amount, account), "Wages"
        )

        if self._agree(expected, lambda work: self._post(work, account.user_id, command)):
            account.deltas.append(amount)

    @rule(at=ACCOUNTS, amount=AMOUNTS, owner=st.sampled_from([True, True, True, False]))
    def withdraw(self, at: int, amount: int, owner: bool = True) -> None:  # noqa: FBT001, FBT002
        account = self._accounts[at]
        expected = account.refuses_out(amount) if owner else "account-not-found"
        who = account.user_id if owner else new_id()
        command = PostTransaction(
            account.id, TransactionKind.WITHDRAWAL, decimal(amount, account), "Out"
        )

        if self._agree(expected, lambda work: self._post(work, who, command)):
            account.deltas.append(-amount)

    @rule(at=ACCOUNTS, to=RECIPIENTS, by_name=st.booleans(), amount=AMOUNTS)
    def transfer(self, at: int, to: int | str, by_name: bool, amount: int) -> None:  # noqa: FBT001
        payer = self._accounts[at]
        payee, recipient, expected = self._recipient(payer, to, amount, by_name=by_name)
        command = TransferMoney(payer.id, recipient, decimal(amount, payer), "Lunch")

        done = self._agree(expected, lambda work: self._transfer(work, payer.user_id, command))
        if done and payee:
            payer.deltas.append(-amount)
            payee.deltas.append(amount)
            self._transfers.append(Transferred(done.transaction.id, payer, payee, amount))

    @precondition(lambda self: self._transfers)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        made = data.draw(st.sampled_from(self._transfers), "transfer")
        expected = (
            AlreadyReversed.code
            if made.is_reversed
            else made.payee.refuses_out(made.amount, also_frozen=True)
            or made.payer.refuses_in(made.amount, made.payee.currency)
        )

        if self._agree(
            expected, lambda work: self._reverse(work, made.id, by=OPERATOR, reason="a mistake")
        ):
            made.is_reversed = True
            made.payer.deltas.append(made.amount)
            made.payee.deltas.append(-made.amount)

    @rule(at=ACCOUNTS, to=RECIPIENTS, by_name=st.booleans(), amount=AMOUNTS)
    def hold(self, at: int, to: int | str, by_name: bool, amount: int) -> None:  # noqa: FBT001
        payer = self._accounts[at]
        payee, recipient, expected = self._recipient(payer, to, amount, by_name=by_name)
        command = PlaceHold(payer.id, recipient, decimal(amount, payer), "A room", EXPIRES_IN)

        done = self._agree(expected, lambda work: self._place(work, payer.user_id, command))
        if done and payee:
            payer.holds.append(Held(done[0].id, payer, payee, amount))

    @precondition(lambda self: self._holds)
    @rule(data=st.data(), amount=st.none() | AMOUNTS, by_operator=st.booleans())
    def capture(self, data: st.DataObject, amount: int | None, by_operator: bool) -> None:  # noqa: FBT001
        held = self._one_of_the_holds(data)
        wanted = held.amount if amount is None else amount
        expected = held.payer.refuses_to_change()
        if expected is None and not held.is_open:
            expected = "hold-not-open"
        if expected is None and wanted > held.amount:
            expected = "more-than-held"
        expected = expected or held.payee.refuses_in(wanted, held.payer.currency)
        stated = None if amount is None else decimal(amount, held.payer)
        actor = Actor(OPERATOR if by_operator else held.payee.user_id, operator=by_operator)

        if self._agree(expected, lambda work: self._end.capture(work, actor, held.id, stated)):
            held.is_open = False
            held.payer.deltas.append(-wanted)
            held.payee.deltas.append(wanted)

    @precondition(lambda self: self._holds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = self._one_of_the_holds(data)
        actor = Actor(held.payee.user_id, operator=False)
        expected = None if held.is_open else "hold-not-open"

        if self._agree(expected, lambda work: self._end.release(work, actor, held.id)):
            held.is_open = False

    @precondition(lambda self: self._holds)
    @rule(data=st.data())
    def time_of_a_hold_is_over(self, data: st.DataObject) -> None:
        """No timer comes to it: whoever loads the account next sees it."""
        held = self._one_of_the_holds(data)
        if not held.is_open:
            return
        self._runner.run(self._execute(_IS_OVER, {"id": held.id, "payer": held.payer.id}))
        held.is_open = False

    @rule(at=ACCOUNTS, to=st.sampled_from(["frozen", "open", "open", "closed"]))
    def change_state(self, at: int, to: str) -> None:
        account = self._accounts[at]
        reason = "stolen, or found"

        def change(work: PostgresAccountsWork) -> Coroutine[Any, Any, Account]:
            if to == "closed":
                return self._change.close(work, account.user_id, account.id)
            act = self._change.freeze if to == "frozen" else self._change.unfreeze
            return act(work, account.id, by=OPERATOR, reason=reason)

        expected = account.refuses_to_change()
        if to == "open":
            expected = None if account.state == "frozen" else "account-not-frozen"
        if to == "closed" and expected is None and account.balance:
            expected = "account-not-empty"

        if self._agree(expected, change):
            account.state = to

    @rule(at=ACCOUNTS)
    def withdraw_all_that_is_free(self, at: int) -> None:
        account = self._accounts[at]
        self.withdraw(at, account.balance - account.held)

    @invariant()
    def accounts_are_as_in_the_model(self) -> None:
        ids = [each.id for each in self._accounts]
        rows = {row.id: row for row in self._runner.run(self._execute(_ROWS, {"ids": ids}))}
        lines = self._runner.run(self._execute(_LINES, {"ids": ids}))
        for account in self._accounts:
            row = rows[account.id]
            of_account = [line for line in lines if line.account_id == account.id]
            assert (row.balance, row.state) == (account.balance, account.state)
            assert row.held == account.held
            assert [line.delta for line in of_account] == account.deltas
            assert [line.position for line in of_account] == list(range(1, len(of_account) + 1))
            assert row.last_position == len(of_account)
            times = [line.occurred_at for line in of_account]
            assert all(earlier <= later for earlier, later in pairwise(times))

    @invariant()
    def both_sides_make_zero_at_one_time(self) -> None:
        ids = [each.id for each in self._accounts]
        assert self._runner.run(self._execute(_UNBALANCED, {"ids": ids})) == []

    def _opened(self, currency: str) -> Modelled:
        user_id, username = new_id(), f"u{new_id().hex}"
        handler = OpenAccountHandler(new_id, self._clock, currency=CURRENCIES[currency])

        async def body(work: PostgresAccountsWork) -> UUID:
            await know_owner(work, user_id, username)
            return await handler(work, user_id)

        return Modelled(self._run(body), user_id, username, currency)

    def _recipient(
        self, payer: Modelled, to: int | str, amount: int, *, by_name: bool
    ) -> tuple[Modelled | None, UUID | str, str | None]:
        """Return the payee, what names it, and the refusal that the model expects."""
        if to == "nobody":
            return None, "nobody" if by_name else new_id(), "unknown-recipient"
        if isinstance(to, str):
            return None, self._newcomer, "account-not-open-yet"
        payee = self._accounts[to]
        refusal = "same-account" if payee is payer else None
        refusal = refusal or payer.refuses_out(amount) or payee.refuses_in(amount, payer.currency)
        return payee, payee.username if by_name else payee.id, refusal

    @property
    def _holds(self) -> list[Held]:
        return [held for account in self._accounts for held in account.holds]

    def _one_of_the_holds(self, data: st.DataObject) -> Held:
        return data.draw(st.sampled_from(self._holds), "hold")

    def _agree(self, expected: str | None, body: Body[T]) -> T | None:
        """Run a command: what it returns, or None where it is refused as expected."""
        # The clocks of two processes differ, and so does this one from itself.
        self._now = datetime.now(UTC) + timedelta(seconds=self._jumps.randint(-3_600, 3_600))
        refused: str | None = None
        done: T | None = None
        try:
            done = self._run(body)
        except DomainError as error:
            refused = error.code
        assert refused == expected
        return done

    def _run(self, body: Body[T]) -> T:
        return self._runner.run(self._transact(body))

    async def _execute(self, statement: Any, values: dict[str, Any]) -> list[Any]:
        async with self._engine.connect() as connection:
            return list((await connection.execute(statement, values)).all())

    def _open_work(self, connection: Connection) -> PostgresAccountsWork:
        return PostgresAccountsWork(connection, self._clock)

    def _clock(self) -> datetime:
        return self._now


# What is held of an account counts until somebody loads it; a hold whose time is over does not.
_ROWS: Final = text(
    "SELECT id, balance, state, last_position, (SELECT coalesce(sum(amount), 0)::bigint FROM holds"
    " WHERE account_id = accounts.id AND state = 'open' AND expires_at > clock_timestamp()) AS held"
    " FROM accounts WHERE id = ANY(CAST(:ids AS uuid[]))"
)
_LINES: Final = text(
    "SELECT account_id, position, delta, occurred_at FROM ledger_entries"
    " WHERE account_id = ANY(CAST(:ids AS uuid[])) ORDER BY position"
)
# Of these accounts only: an example that failed leaves what it has broken behind.
_UNBALANCED: Final = text(
    "SELECT transaction_id FROM ledger_entries WHERE transaction_id IN (SELECT transaction_id"
    " FROM ledger_entries WHERE account_id = ANY(CAST(:ids AS uuid[])))"
    " GROUP BY transaction_id HAVING sum(delta) <> 0 OR min(occurred_at) <> max(occurred_at)"
)
_IS_OVER: Final = text(
    "WITH over AS (UPDATE holds SET expires_at = clock_timestamp() WHERE id = CAST(:id AS uuid))"
    " UPDATE accounts SET next_expiry = clock_timestamp() WHERE id = CAST(:payer AS uuid)"
    " RETURNING id"
)


def decimal(amount: int, account: Modelled) -> str:
    return str(Money(amount, CURRENCIES[account.currency]))


@pytest.fixture
def machine(accounts_database: str) -> Iterator[Callable[[], MoneyMachine]]:
    with asyncio.Runner() as runner:
        engine = Database(accounts_database, pool_size=1, application_name="test")
        yield lambda: MoneyMachine(runner, engine)
        runner.run(engine.close())


@pytest.mark.timeout(120)
def test_money_is_where_the_model_has_it_whatever_was_asked_for(
    machine: Callable[[], MoneyMachine],
) -> None:
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type] # whatever makes a machine will do
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            # Shrinking takes longer than the test may.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
