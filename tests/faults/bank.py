"""People with accounts who move money, and repeat each command until it is answered."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

import httpx

from tests.e2e.people import poll, token_of
from tests.faults.databases import rows
from tests.faults.harness import System

FIRST_MINOR_UNITS: Final = 10_000
_PASSWORD: Final = "correct horse battery"
_ANSWER_WITHIN_S: Final = 5.0
# The share of answered commands that are sent again, as by a client that did not see the answer.
_FORGETFUL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Customer:
    """Someone with an account, and the headers of their token."""

    username: str
    account: str
    headers: Mapping[str, str]


@dataclass
class Bank:
    """Customers who move money between their accounts, straight at the accounts service."""

    system: System
    random: random.Random
    customers: list[Customer] = field(default_factory=list)
    #: The transactions that were answered: one for each key that moved money between customers.
    moved: list[str] = field(default_factory=list)
    refused: int = 0
    repeated: int = 0
    #: Answers that no client should get.
    wrong: list[str] = field(default_factory=list)

    async def open(self, client: httpx.AsyncClient, count: int) -> None:
        """Sign people up, and give each of them the first money."""
        while len(self.system.workload.promised) < count:
            await self.system.workload.sign_up(count)
        for username in list(self.system.workload.promised.values())[-count:]:
            customer = await self._customer(client, username)
            self.customers.append(customer)
            await self.send(
                client,
                customer,
                f"/accounts/{customer.account}/transactions",
                kind="deposit",
                amount=decimal(FIRST_MINOR_UNITS),
                description="First money",
            )

    async def move(self, client: httpx.AsyncClient) -> None:
        """Transfer from one to another; now and then hold it first."""
        payer, payee = self.random.sample(self.customers, 2)
        # Sometimes more than there is.
        amount = decimal(self.random.randint(1, FIRST_MINOR_UNITS))
        if self.random.random() < 0.75:
            transfer = {"from_account": payer.account, "to_username": payee.username}
            what = transfer | {"amount": amount, "description": "Round and round"}
            await self._moved(client, payer, "/transfers", **what)
            return
        hold = await self.send(
            client,
            payer,
            "/holds",
            account=payer.account,
            to_account=payee.account,
            amount=amount,
            description="Round and round",
            expires_in=3_600,
        )
        if hold is None:
            return
        path = f"/holds/{hold['hold']['id']}"
        if self.random.random() < 0.75:
            await self._moved(client, payee, f"{path}/capture")
        else:
            await self.send(client, payee, f"{path}/release")

    async def hold_that_expires(self, client: httpx.AsyncClient) -> UUID:
        """Hold a cent, if it is there, for a second; return the payer's account."""
        payer, payee = self.customers[:2]
        await self.send(
            client,
            payer,
            "/holds",
            account=payer.account,
            to_account=payee.account,
            amount="0.01",
            description="Round and round",
            expires_in=1,
        )
        return UUID(payer.account)

    async def send(
        self, client: httpx.AsyncClient, by: Customer, path: str, /, **body: Any
    ) -> dict[str, Any] | None:
        """Send a command under a key of its own until it is answered.

        :return: the answer; None: there is too little money
        """
        key = str(uuid4())
        answer = await self._answered(client, by, path, key, body)
        if answer.is_success:
            # What is refused changed nothing, and is decided anew when it is asked for again.
            if self.random.random() < _FORGETFUL:
                again = await self._answered(client, by, path, key, body)
                if (again.status_code, again.content) != (answer.status_code, answer.content):
                    self.wrong.append(f"{path}: {answer.text}, and then {again.text}")
            done: dict[str, Any] = answer.json()
            return done
        if answer.json().get("code") != "insufficient-funds":
            self.wrong.append(f"{path}: {answer.status_code} {answer.text}")
        self.refused += 1
        return None

    async def _moved(self, client: httpx.AsyncClient, by: Customer, path: str, **body: Any) -> None:
        done = await self.send(client, by, path, **body)
        if done is not None:
            self.moved.append(done["transaction"]["id"])

    async def _answered(
        self, client: httpx.AsyncClient, by: Customer, path: str, key: str, body: Any
    ) -> httpx.Response:
        headers = {**by.headers, "Idempotency-Key": key}
        url = f"{self.system.cluster.url('accounts')}{path}"

        async def answer() -> httpx.Response | None:
            try:
                answer = await client.post(
                    url, json=body, headers=headers, timeout=_ANSWER_WITHIN_S
                )
            except httpx.TransportError:
                answer = None
            if answer is None or answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                self.repeated += 1
                return None
            return answer

        found = await poll(answer, lambda each: each is not None)
        assert found is not None
        return found

    async def _customer(self, client: httpx.AsyncClient, username: str) -> Customer:
        async def found() -> Customer | None:
            try:
                async with httpx.AsyncClient(
                    base_url=self.system.cluster.gateway_url, timeout=10
                ) as gateway:
                    headers = await token_of(gateway, username, _PASSWORD)
                    answer = await gateway.get("/users/me/account", headers=headers)
            except (httpx.TransportError, AssertionError):
                return None
            if not answer.is_success:
                return None
            return Customer(username, answer.json()["id"], headers)

        customer = await poll(found)
        assert customer is not None
        return customer

    async def balances(self) -> list[int]:
        """Return the balance of each customer, in minor units, as the database has it."""
        ids = [UUID(each.account) for each in self.customers]
        found = await rows(
            self.system, "accounts", "SELECT balance FROM accounts WHERE id = ANY($1)", ids
        )
        return [row["balance"] for row in found]

    async def transactions(self) -> list[str]:
        """Return the transactions between the customers, as the database has them."""
        ids = [UUID(each.account) for each in self.customers]
        found = await rows(
            self.system,
            "accounts",
            "SELECT DISTINCT transaction_id FROM ledger_entries"
            " WHERE account_id = ANY($1) AND kind IN ('transfer', 'capture')",
            ids,
        )
        return [str(row["transaction_id"]) for row in found]


def decimal(minor_units: int) -> str:
    return f"{minor_units // 100}.{minor_units % 100:02}"
