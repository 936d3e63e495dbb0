"""Every command on money over HTTP, with the fakes."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from accounts_service.adapters.currencies import CASH_ACCOUNTS, CURRENCIES
from accounts_service.adapters.in_memory import InMemoryTransactor
from accounts_service.application.change_state import ChangeStateHandler
from accounts_service.application.hold_money import (
    EndHoldHandler,
    HoldExpiry,
    PlaceHoldHandler,
    expire_holds,
)
from accounts_service.application.ports import AccountsWork
from accounts_service.application.post_transaction import PostTransactionHandler
from accounts_service.application.transfer import ReverseTransferHandler, TransferHandler
from accounts_service.domain.account import Account
from accounts_service.domain.hold import MOST_OPEN_HOLDS
from accounts_service.entrypoints.holds import hold_routes
from accounts_service.entrypoints.money import money_routes
from accounts_service.settings import AccountsSettings
from chassis.correlation import new_id
from chassis.persistence.transactor import Transact
from chassis.testing import fire_due
from chassis.web.app import create_app
from chassis.web.auth import OPERATOR
from chassis.web.dry_run import once_or_dry_run
from chassis.web.health import Health
from contracts.envelope import decode

from .making import NOW, an_account, post
from .ports_suite import store
from .test_http import by, signed_in

LUNCH = "Lunch"
BOSS = by(new_id(), OPERATOR)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def transact(clock: Clock) -> InMemoryTransactor:
    return InMemoryTransactor(clock)


@pytest.fixture
async def payer(transact: InMemoryTransactor) -> Account:
    """An account with 100.00."""
    account = an_account()
    post(account, 10_000)
    await store(transact, account)
    return account


@pytest.fixture
async def payee(transact: InMemoryTransactor) -> Account:
    account = an_account()
    await store(transact, account)
    return account


@pytest.fixture
async def client(transact: InMemoryTransactor, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    secret = SecretStr("s" * 32)
    settings = AccountsSettings(
        database_url=SecretStr("postgresql://accounts@127.0.0.1:1/accounts"),
        jwks_url="http://127.0.0.1:1/jwks.json",
        idempotency_secret=secret,
    )
    transactor: Transact[AccountsWork] = transact
    once = once_or_dry_run(transactor, secret=secret, now=clock, principal=signed_in)
    money = money_routes(
        post=PostTransactionHandler(new_id, clock),
        transfer=TransferHandler(new_id, clock),
        reverse=ReverseTransferHandler(new_id, clock),
        change=ChangeStateHandler(clock),
        by_owner=once,
        by_operator=once,
        signed_in=signed_in,
        operator=signed_in,
    )
    holds = hold_routes(
        place=PlaceHoldHandler(new_id),
        end=EndHoldHandler(new_id, clock),
        by_user=once,
        signed_in=signed_in,
    )
    app = create_app(
        title="Accounts",
        description="",
        version="1",
        settings=settings,
        routers=[money, holds],
        health=Health(),
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://accounts") as client:
        yield client


async def deposit(client: httpx.AsyncClient, account: Account, amount: Any) -> httpx.Response:
    return await client.post(
        f"/accounts/{account.id}/transactions",
        json={"kind": "deposit", "amount": amount, "description": LUNCH},
        headers=by(account.user_id),
    )


async def withdraw(client: httpx.AsyncClient, account: Account, amount: str) -> httpx.Response:
    return await client.post(
        f"/accounts/{account.id}/transactions",
        json={"kind": "withdrawal", "amount": amount, "description": LUNCH},
        headers=by(account.user_id),
    )


async def transfer(
    client: httpx.AsyncClient,
    payer: Account,
    to: UUID | str,
    amount: str,
    headers: dict[str, str] | None = None,
    **query: Any,
) -> httpx.Response:
    recipient = {"to_account": str(to)} if isinstance(to, UUID) else {"to_username": to}
    return await client.post(
        "/transfers",
        json={"from_account": str(payer.id), "amount": amount, "description": LUNCH} | recipient,
        headers=by(payer.user_id) | (headers or {}),
        params=query,
    )


async def hold(
    client: httpx.AsyncClient, payer: Account, payee: Account, amount: str, expires_in: int = 60
) -> httpx.Response:
    return await client.post(
        "/holds",
        json={
            "account": str(payer.id),
            "to_account": str(payee.id),
            "amount": amount,
            "description": "A room",
            "expires_in": expires_in,
        },
        headers=by(payer.user_id),
    )


async def capture(
    client: httpx.AsyncClient, hold_id: str, headers: dict[str, str], amount: str | None = None
) -> httpx.Response:
    return await client.post(f"/holds/{hold_id}/capture", json={"amount": amount}, headers=headers)


async def freeze(client: httpx.AsyncClient, account: Account) -> httpx.Response:
    return await client.post(
        f"/accounts/{account.id}/freeze", json={"reason": "stolen"}, headers=BOSS
    )


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def balance(transact: InMemoryTransactor, account: Account) -> int:
    return transact.stored.accounts[account.id].balance


def published(transact: InMemoryTransactor) -> list[str]:
    return [decode(row["payload"]).type.removeprefix("accounts.") for row in transact.stored.outbox]


class TestDepositsAndWithdrawals:
    async def test_a_deposit_answers_the_transaction_and_the_balance(
        self, client: httpx.AsyncClient, payer: Account
    ) -> None:
        answer = await deposit(client, payer, "12.30")

        assert answer.status_code == 201
        body = answer.json()
        assert (body["balance"], body["available"], body["currency"]) == ("112.30", "112.30", "USD")
        del body["transaction"]["id"]
        assert body["transaction"] == {
            "position": 3,
            "kind": "deposit",
            "delta": "12.30",
            "balance_after": "112.30",
            "description": LUNCH,
            "occurred_at": "2026-01-02T03:04:05Z",
        }

    async def test_a_withdrawal_takes_all_that_is_there_and_no_more(
        self, client: httpx.AsyncClient, payer: Account
    ) -> None:
        assert_refused(await withdraw(client, payer, "100.01"), 409, "insufficient-funds")

        answer = await withdraw(client, payer, "100")

        assert answer.json()["balance"] == "0.00"
        assert answer.json()["transaction"]["delta"] == "-100.00"

    @pytest.mark.parametrize("amount", [12, 12.3, None, True, ["1"], {"units": 1}])
    async def test_an_amount_that_is_no_text_is_refused(
        self, client: httpx.AsyncClient, payer: Account, amount: Any
    ) -> None:
        answer = await deposit(client, payer, amount)

        assert_refused(answer, 422, "invalid-fields")
        assert [each["field"] for each in answer.json()["errors"]] == ["amount"]

    @pytest.mark.parametrize(
        ("amount", "code"),
        [
            ("1.234", "too-many-decimals"),
            ("01", "not-decimal"),
            ("ten", "string-pattern-mismatch"),
            ("9" * 19, "too-large"),
        ],
    )
    async def test_a_text_that_is_no_amount_is_refused_with_the_reason(
        self, client: httpx.AsyncClient, payer: Account, amount: str, code: str
    ) -> None:
        answer = await deposit(client, payer, amount)

        assert_refused(answer, 422, "invalid-fields")
        assert [each["code"] for each in answer.json()["errors"]] == [code]

    @pytest.mark.parametrize("kind", ["transfer", "DEPOSIT", None])
    async def test_another_kind_is_refused_in_the_words_of_the_document(
        self, client: httpx.AsyncClient, payer: Account, kind: Any
    ) -> None:
        answer = await client.post(
            f"/accounts/{payer.id}/transactions",
            json={"kind": kind, "amount": "1", "description": LUNCH},
            headers=by(payer.user_id),
        )

        assert_refused(answer, 422, "invalid-fields")
        assert answer.json()["detail"] == "kind: Input should be 'deposit' or 'withdrawal'"

    @pytest.mark.parametrize("amount", ["0", "0.00", "-0.00", "-1", "-0.01"])
    async def test_zero_or_less_is_refused(
        self, client: httpx.AsyncClient, payer: Account, amount: str
    ) -> None:
        assert_refused(await deposit(client, payer, amount), 422, "amount-not-positive")
        assert_refused(await withdraw(client, payer, amount), 422, "amount-not-positive")

    async def test_a_balance_never_leaves_64_bits(
        self, client: httpx.AsyncClient, payer: Account
    ) -> None:
        answer = await deposit(client, payer, "92233720368547758.07")

        assert_refused(answer, 409, "balance-too-large")

    @pytest.mark.parametrize("description", ["ab", "a" * 256, "a\nb", 7])
    async def test_a_description_has_3_to_255_printable_characters(
        self, client: httpx.AsyncClient, payer: Account, description: Any
    ) -> None:
        answer = await client.post(
            f"/accounts/{payer.id}/transactions",
            json={"kind": "deposit", "amount": "1", "description": description},
            headers=by(payer.user_id),
        )

        assert_refused(answer, 422, "invalid-fields")

    @pytest.mark.parametrize("headers", [by(new_id()), BOSS], ids=["a stranger", "an operator"])
    async def test_only_the_owner_moves_money(
        self, client: httpx.AsyncClient, payer: Account, headers: dict[str, str]
    ) -> None:
        answer = await client.post(
            f"/accounts/{payer.id}/transactions",
            json={"kind": "withdrawal", "amount": "1", "description": LUNCH},
            headers=headers,
        )

        assert_refused(answer, 404, "account-not-found")


class TestTransfers:
    async def test_a_transfer_is_one_transaction_of_two_accounts(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        answer = await transfer(client, payer, payee.id, "30")

        assert answer.status_code == 201
        assert (answer.json()["account_id"], answer.json()["balance"]) == (str(payer.id), "70.00")
        lines = [transact.stored.transactions[each.id][-1] for each in (payer, payee)]
        assert [(str(line.id), line.delta, line.balance_after) for line in lines] == [
            (answer.json()["transaction"]["id"], -3_000, 7_000),
            (answer.json()["transaction"]["id"], 3_000, 3_000),
        ]
        assert published(transact)[-2:] == ["transaction-created.v1"] * 2

    async def test_the_payee_is_found_by_name(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        transact.stored.owners |= {"grace": payee.user_id, "new": new_id()}

        assert (await transfer(client, payer, "Grace", "30")).status_code == 201
        assert_refused(await transfer(client, payer, "new", "1"), 409, "account-not-open-yet")
        assert_refused(await transfer(client, payer, "nobody", "1"), 422, "unknown-recipient")
        assert balance(transact, payee) == 3_000

    async def test_each_refusal_has_its_code_and_nothing_moves(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        euros = Account.open(
            new_id(),
            user_id=new_id(),
            currency=CURRENCIES["EUR"],
            transaction_id=new_id(),
            now=NOW,
        )
        closed = an_account()
        closed.close(NOW)
        await store(transact, euros, closed)

        for to, amount, status, code in (
            (payer.id, "1", 422, "same-account"),
            (new_id(), "1", 422, "unknown-recipient"),
            (CASH_ACCOUNTS["USD"], "1", 422, "unknown-recipient"),
            (closed.id, "1", 409, "account-closed"),
            (euros.id, "1", 409, "other-currency"),
            (payee.id, "0", 422, "amount-not-positive"),
            (payee.id, "100.01", 409, "insufficient-funds"),
        ):
            assert_refused(await transfer(client, payer, to, amount), status, code)
        assert balance(transact, payer) == 10_000

    async def test_the_recipient_is_named_once(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        asked = {"from_account": str(payer.id), "amount": "1", "description": LUNCH}
        both = {"to_account": str(payee.id), "to_username": "grace"}
        for recipient in ({}, both):
            answer = await client.post(
                "/transfers", json=asked | recipient, headers=by(payer.user_id)
            )
            assert_refused(answer, 422, "invalid-fields")
            assert answer.json()["detail"] == "body: give either to_account or to_username"

    async def test_a_name_that_nobody_can_have_is_nobodys(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        transact.stored.owners["kate"] = payee.user_id

        for name, code in (
            ("\N{KELVIN SIGN}ate", "unknown-recipient"),
            ("ka\x00te", "invalid-fields"),
            ("k" * 65, "invalid-fields"),
        ):
            assert_refused(await transfer(client, payer, name, "1"), 422, code)

    async def test_the_same_key_moves_money_once(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        key = {"Idempotency-Key": "k-1"}
        first = await transfer(client, payer, payee.id, "30", key)
        again = await transfer(client, payer, payee.id, "30", key)

        assert again.json() == first.json()
        assert again.headers["idempotency-replayed"] == "true"
        assert balance(transact, payer) == 7_000


class TestReversals:
    async def reverse(self, client: httpx.AsyncClient, transfer_id: str) -> httpx.Response:
        return await client.post(
            f"/transfers/{transfer_id}/reversal", json={"reason": "a mistake"}, headers=BOSS
        )

    async def test_a_transfer_is_reversed_once(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        made = (await transfer(client, payer, payee.id, "30")).json()["transaction"]["id"]

        answer = await self.reverse(client, made)

        assert answer.status_code == 201
        assert answer.json()["balance"] == "100.00"
        assert answer.json()["transaction"]["kind"] == "reversal"
        assert (balance(transact, payer), balance(transact, payee)) == (10_000, 0)
        assert published(transact)[-3:] == [
            "transaction-created.v1",
            "transfer-reversed.v1",
            "transaction-created.v1",
        ]
        again = await self.reverse(client, made)
        assert_refused(again, 409, "already-reversed")
        assert answer.json()["transaction"]["id"] in again.json()["detail"]

    async def test_money_that_is_spent_is_not_taken(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        made = (await transfer(client, payer, payee.id, "30")).json()["transaction"]["id"]
        await withdraw(client, payee, "0.01")

        assert_refused(await self.reverse(client, made), 409, "insufficient-funds")

    async def test_money_is_taken_back_from_a_frozen_account(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        made = (await transfer(client, payer, payee.id, "30")).json()["transaction"]["id"]
        await freeze(client, payee)

        assert (await self.reverse(client, made)).status_code == 201

    async def test_only_transfers_are_reversed(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        paid_in = (await deposit(client, payer, "30")).json()["transaction"]["id"]
        made = (await transfer(client, payer, payee.id, "30")).json()["transaction"]["id"]
        back = (await self.reverse(client, made)).json()["transaction"]["id"]

        for id_ in (paid_in, back, str(new_id())):
            assert_refused(await self.reverse(client, id_), 404, "transfer-not-found")


class TestStates:
    async def test_nothing_goes_out_of_a_frozen_account_and_money_may_come_in(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        held = (await hold(client, payer, payee, "1")).json()["hold"]["id"]

        assert (await freeze(client, payer)).json()["state"] == "frozen"

        assert_refused(await withdraw(client, payer, "1"), 409, "account-frozen")
        assert_refused(await transfer(client, payer, payee.id, "1"), 409, "account-frozen")
        assert_refused(await hold(client, payer, payee, "1"), 409, "account-frozen")
        assert_refused(await capture(client, held, by(payee.user_id)), 409, "account-frozen")
        assert (await deposit(client, payer, "1")).status_code == 201
        assert_refused(await freeze(client, payer), 409, "account-frozen")

    async def test_an_account_is_unfrozen_with_a_reason(
        self, client: httpx.AsyncClient, transact: InMemoryTransactor, payer: Account
    ) -> None:
        path = f"/accounts/{payer.id}/freeze"
        await freeze(client, payer)

        assert (await client.delete(path, headers=BOSS)).status_code == 422
        ended = await client.delete(path, params={"reason": "it is back"}, headers=BOSS)
        again = await client.delete(path, params={"reason": "it is back"}, headers=BOSS)

        assert ended.json()["state"] == "open"
        assert_refused(again, 409, "account-not-frozen")
        assert (await withdraw(client, payer, "1")).status_code == 201
        assert published(transact)[-3:-1] == ["account-frozen.v1", "account-unfrozen.v1"]

    async def test_an_owner_closes_an_account_without_money(
        self, client: httpx.AsyncClient, transact: InMemoryTransactor, payer: Account
    ) -> None:
        path = f"/accounts/{payer.id}/closure"
        owner = by(payer.user_id)
        assert_refused(await client.post(path, headers=owner), 409, "account-not-empty")
        assert_refused(await client.post(path, headers=BOSS), 404, "account-not-found")
        await withdraw(client, payer, "100")

        assert (await client.post(path, headers=owner)).json()["state"] == "closed"

        assert published(transact)[-1] == "account-closed.v1"
        assert_refused(await client.post(path, headers=owner), 409, "account-closed")
        assert_refused(await deposit(client, payer, "1"), 409, "account-closed")
        assert_refused(await freeze(client, payer), 409, "account-closed")


class TestHolds:
    async def test_what_is_held_is_in_the_balance_and_cannot_be_spent(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        answer = await hold(client, payer, payee, "60")

        assert answer.status_code == 201
        assert (answer.json()["balance"], answer.json()["available"]) == ("100.00", "40.00")
        assert answer.json()["hold"]["state"] == "open"
        assert_refused(await withdraw(client, payer, "40.01"), 409, "insufficient-funds")
        assert_refused(await hold(client, payer, payee, "40.01"), 409, "insufficient-funds")
        assert (await withdraw(client, payer, "40")).json()["available"] == "0.00"

    async def test_the_payee_takes_a_part_and_the_rest_is_free(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        held = (await hold(client, payer, payee, "60")).json()["hold"]["id"]
        theirs = by(payee.user_id)
        assert_refused(await capture(client, held, theirs, "60.01"), 409, "more-than-held")
        assert_refused(await capture(client, held, theirs, "0"), 422, "amount-not-positive")

        answer = await capture(client, held, theirs, "25")

        assert answer.json()["account_id"] == str(payee.id)
        assert answer.json()["transaction"]["description"] == "A room"
        assert (balance(transact, payer), balance(transact, payee)) == (7_500, 2_500)
        assert transact.stored.accounts[payer.id].available == 7_500
        assert_refused(await capture(client, held, theirs), 409, "hold-not-open")
        assert published(transact)[-4:] == [
            "hold-placed.v1",
            "transaction-created.v1",
            "hold-captured.v1",
            "transaction-created.v1",
        ]

    async def test_an_operator_takes_all_for_the_payee(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        held = (await hold(client, payer, payee, "60")).json()["hold"]["id"]

        assert (await capture(client, held, BOSS)).status_code == 201

        assert balance(transact, payee) == 6_000

    async def test_the_payer_and_strangers_end_no_hold(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        held = (await hold(client, payer, payee, "60")).json()["hold"]["id"]

        assert_refused(await capture(client, held, by(payer.user_id)), 403, "not-the-payee")
        assert_refused(await capture(client, held, by(new_id())), 404, "hold-not-found")
        assert_refused(await capture(client, str(new_id()), BOSS), 404, "hold-not-found")

    async def test_the_payee_releases_it(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        held = (await hold(client, payer, payee, "60")).json()["hold"]["id"]
        path = f"/holds/{held}/release"

        answer = await client.post(path, headers=by(payee.user_id))

        assert answer.json()["state"] == "released"
        assert (await withdraw(client, payer, "100")).status_code == 201
        assert_refused(await client.post(path, headers=BOSS), 409, "hold-not-open")

    async def test_it_counts_for_nothing_once_its_time_is_over(
        self, client: httpx.AsyncClient, clock: Clock, payer: Account, payee: Account
    ) -> None:
        held = (await hold(client, payer, payee, "60", expires_in=60)).json()["hold"]["id"]
        clock.now += timedelta(seconds=60)

        assert_refused(await capture(client, held, by(payee.user_id)), 409, "hold-not-open")
        assert (await withdraw(client, payer, "100")).json()["available"] == "0.00"

    async def test_a_timer_writes_that_it_has_expired(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        clock: Clock,
        payer: Account,
        payee: Account,
    ) -> None:
        await hold(client, payer, payee, "60", expires_in=60)
        clock.now += timedelta(seconds=60)

        failed = await fire_due(
            transact, {HoldExpiry: expire_holds}, lambda: transact.stored.timers, clock.now
        )

        assert (failed, transact.stored.timers) == ([], {})
        assert transact.stored.accounts[payer.id].held == 0
        assert published(transact)[-1] == "hold-expired.v1"

    async def test_a_timer_before_whose_firing_the_clock_was_set_back_comes_again(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        clock: Clock,
        payer: Account,
        payee: Account,
    ) -> None:
        await hold(client, payer, payee, "60", expires_in=60)
        [first] = transact.stored.timers.values()
        assert isinstance(first.what, HoldExpiry)
        what = first.what

        async def fire(work: AccountsWork) -> None:
            await work.timers.cancel(first.due.id)
            await expire_holds(work, what, first.due)

        await transact(fire)

        [again] = transact.stored.timers.values()
        assert (again.what, again.due.due_at) == (what, first.due.due_at)
        clock.now = first.due.due_at
        await fire_due(
            transact, {HoldExpiry: expire_holds}, lambda: transact.stored.timers, clock.now
        )
        assert transact.stored.accounts[payer.id].held == 0

    async def test_an_account_has_a_bounded_number_of_them(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        for _ in range(MOST_OPEN_HOLDS):
            assert (await hold(client, payer, payee, "0.01")).status_code == 201

        assert_refused(await hold(client, payer, payee, "0.01"), 409, "too-many-holds")

    @pytest.mark.parametrize("expires_in", [0, -1, 30 * 86_400 + 1, 1.5, "PT1H", "60", True])
    async def test_its_time_is_bounded(
        self, client: httpx.AsyncClient, payer: Account, payee: Account, expires_in: Any
    ) -> None:
        assert_refused(await hold(client, payer, payee, "1", expires_in), 422, "invalid-fields")


class TestDryRuns:
    async def test_a_dry_run_answers_and_changes_nothing(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        payee: Account,
    ) -> None:
        before = published(transact)

        answer = await transfer(client, payer, payee.id, "30", dry_run=True)
        refused = await transfer(client, payer, payee.id, "100.01", dry_run=True)

        assert (answer.status_code, answer.json()["balance"]) == (200, "70.00")
        assert_refused(refused, 409, "insufficient-funds")
        assert balance(transact, payer) == 10_000
        assert published(transact) == before

    @pytest.mark.parametrize(
        ("query", "field", "code"),
        [
            ("dryrun=true", "dryrun", "extra-forbidden"),
            ("dry_run=true&Dry_run=true", "Dry_run", "extra-forbidden"),
            ("dry_run=true&dry_run=false", "dry_run", "repeated"),
        ],
    )
    async def test_a_dry_run_that_is_misspelt_moves_nothing(
        self,
        client: httpx.AsyncClient,
        transact: InMemoryTransactor,
        payer: Account,
        query: str,
        field: str,
        code: str,
    ) -> None:
        answer = await client.post(
            f"/accounts/{payer.id}/transactions?{query}",
            json={"kind": "deposit", "amount": "1", "description": LUNCH},
            headers=by(payer.user_id),
        )

        assert answer.status_code == 422
        assert [(each["field"], each["code"]) for each in answer.json()["errors"]] == [
            (field, code)
        ]
        assert balance(transact, payer) == 10_000

    async def test_a_dry_run_is_in_the_document(self, client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()

        for path, operations in document["paths"].items():
            for operation in operations.values():
                assert {"200", "400", "422"} <= operation["responses"].keys(), path

    async def test_a_dry_run_takes_no_key(
        self, client: httpx.AsyncClient, payer: Account, payee: Account
    ) -> None:
        answer = await transfer(
            client, payer, payee.id, "30", {"Idempotency-Key": "k-1"}, dry_run=True
        )

        assert_refused(answer, 400, "bad-request")
        assert "Idempotency-Key" in answer.json()["detail"]
