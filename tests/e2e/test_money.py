"""Money through the gateway, and what the other services make of it."""

from typing import Any

import httpx
import pytest

from tests.e2e.people import Operator, Person, poll

pytestmark = pytest.mark.xdist_group("e2e")


class WithAccount:
    """A person whose account is open."""

    def __init__(self, gateway: httpx.AsyncClient) -> None:
        self.person = Person(gateway)
        self.gateway = gateway
        self.headers: dict[str, str] = {}
        self.account_id = ""

    async def begin(self, operator: Operator) -> "WithAccount":
        await self.person.sign_up()
        account = await poll(lambda: operator.account_of(self.person))
        assert account is not None
        self.account_id = account["id"]
        self.headers = await self.person.sign_in()
        return self

    async def sends(self, path: str, **body: Any) -> httpx.Response:
        return await self.gateway.post(path, json=body, headers=self.headers)

    async def account(self) -> dict[str, Any]:
        answer = await self.gateway.get("/users/me/account", headers=self.headers)
        account: dict[str, Any] = answer.json()
        return account


class TestMoney:
    async def test_is_paid_in_and_transferred_by_name_held_captured_and_reversed(
        self, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        ada = await WithAccount(gateway).begin(operator)
        grace = await WithAccount(gateway).begin(operator)

        paid_in = await ada.sends(
            f"/accounts/{ada.account_id}/transactions",
            kind="deposit",
            amount="100.00",
            description="First money",
        )
        transfer = await ada.sends(
            "/transfers",
            from_account=ada.account_id,
            to_username=grace.person.username,
            amount="30.00",
            description="For lunch",
        )
        hold = await ada.sends(
            "/holds",
            account=ada.account_id,
            to_username=grace.person.username,
            amount="50.00",
            description="A room",
            expires_in=600,
        )
        captured = await grace.sends(f"/holds/{hold.json()['hold']['id']}/capture", amount="20.00")
        transfer_id = transfer.json()["transaction"]["id"]
        reversed_ = await operator.request(
            "POST", f"/transfers/{transfer_id}/reversal", json={"reason": "it was a gift"}
        )

        answers = (paid_in, transfer, hold, captured, reversed_)
        assert [each.status_code for each in answers] == [201] * 5, [e.text for e in answers]
        assert hold.json()["available"] == "20.00"
        assert captured.json()["balance"] == "50.00"
        assert (await ada.account())["balance"] == "80.00"
        assert [each["kind"] for each in (await grace.account())["transactions"]] == [
            "reversal",
            "capture",
            "transfer",
            "opening",
        ]

        async def types() -> list[str]:
            page = await operator.get("/audit/events", subject=ada.account_id)
            return sorted(each["type"].split(".")[1] for each in page["events"])

        assert await poll(types, lambda found: len(found) == 8) == [
            "account-opened",
            "hold-captured",
            "hold-placed",
            *["transaction-created"] * 4,
            "transfer-reversed",
        ]

    async def test_of_a_frozen_account_stays_where_it_is(
        self, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        ada = await WithAccount(gateway).begin(operator)
        path = f"/accounts/{ada.account_id}"
        money = {"kind": "deposit", "amount": "1", "description": "First money"}
        await ada.sends(f"{path}/transactions", **money)

        await operator.request("POST", f"{path}/freeze", json={"reason": "stolen"})
        refused = await ada.sends(f"{path}/transactions", **money | {"kind": "withdrawal"})
        await operator.request("DELETE", f"{path}/freeze", params={"reason": "it is back"})
        allowed = await ada.sends(f"{path}/transactions", **money | {"kind": "withdrawal"})

        assert (refused.status_code, refused.json()["code"]) == (409, "account-frozen")
        assert (allowed.status_code, allowed.json()["balance"]) == (201, "0.00")
