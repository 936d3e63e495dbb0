"""What a user's browser is sent of an event, and what it is not."""

import json
from uuid import UUID

import pytest

from chassis.correlation import new_id
from contracts.accounts import (
    AccountFrozenV1,
    AccountsEventWithheldV1,
    HoldCapturedV1,
    TransactionCreatedV1,
)
from contracts.topics import ACCOUNTS_ACCOUNT
from notification_service.stream_events import (
    AMOUNTS,
    LogForStreams,
    Position,
    ShownEvent,
    StreamEvent,
    shown,
)

from .making import NOW, enveloped

ADA, ACCOUNT, OPAL = UUID(int=1), UUID(int=2), UUID(int=3)
FROZEN = AccountFrozenV1(account_id=ACCOUNT, user_id=ADA, by=OPAL, reason="two lines")

#: A new field of a contract is shown to users once it stands here.
_OF_A_HOLD = {"hold_id", "account_id", "user_id"}
SHOWN = {
    "accounts.account-opened.v1": {"account_id", "user_id", "currency"},
    "accounts.transaction-created.v1": {
        "transaction_id",
        "account_id",
        "user_id",
        "position",
        "kind",
        "currency",
        "delta",
        "balance_after",
        "reverses",
    },
    "accounts.transfer-reversed.v1": {"account_id", "user_id", "transfer_id", "reversal_id"},
    "accounts.hold-placed.v1": {
        *_OF_A_HOLD,
        "payee_account_id",
        "amount",
        "currency",
        "expires_at",
    },
    "accounts.hold-captured.v1": {*_OF_A_HOLD, "transaction_id", "amount", "currency"},
    "accounts.hold-released.v1": _OF_A_HOLD,
    "accounts.hold-expired.v1": _OF_A_HOLD,
    "accounts.account-frozen.v1": {"account_id", "user_id"},
    "accounts.account-unfrozen.v1": {"account_id", "user_id"},
    "accounts.account-closed.v1": {"account_id", "user_id"},
}


class Work:
    """Keeps what is stored."""

    def __init__(self) -> None:
        self.stored: list[StreamEvent] = []

    @property
    def stream_events(self) -> list[StreamEvent]:
        return self.stored

    async def flush(self) -> None:
        pass


def test_every_event_of_an_account_is_shown_to_its_owner_except_one_that_was_withheld() -> None:
    shown_ = LogForStreams(lambda: NOW).events

    assert set(shown_) == set(ACCOUNTS_ACCOUNT.events) - {AccountsEventWithheldV1}
    assert {each.event_type: set(each.model_fields) - {"by", "reason"} for each in shown_} == SHOWN


async def test_an_event_is_stored_for_its_user_without_the_operators_words() -> None:
    envelope = enveloped(FROZEN, source="/accounts", subject=ACCOUNT)
    work = Work()

    await LogForStreams(lambda: NOW)(work, FROZEN, envelope)

    (stored,) = work.stored
    assert (stored.user_id, stored.event_id, stored.stored_at) == (ADA, envelope.id, NOW)
    assert json.loads(stored.data) == {
        "type": "accounts.account-frozen.v1",
        "time": "2026-01-02T03:04:05Z",
        "account_id": str(ACCOUNT),
        "user_id": str(ADA),
    }


def test_what_is_shown_is_one_line() -> None:
    text = what_is_shown(transaction(currency="USD"))

    assert len(text.splitlines()) == 1


class TestAnAmount:
    @pytest.mark.parametrize(
        ("currency", "minor_units", "text"),
        [
            ("USD", 1230, "12.30"),
            ("USD", -5, "-0.05"),
            ("USD", 0, "0.00"),
            ("JPY", 1230, "1230"),
            ("KWD", -(2**63), "-9223372036854775.808"),
            ("CLF", 2**63 - 1, "922337203685477.5807"),
        ],
    )
    def test_is_shown_as_decimal_text(self, currency: str, minor_units: int, text: str) -> None:
        event = json.loads(what_is_shown(transaction(currency=currency, delta=minor_units)))

        assert (event["delta"], event["currency"]) == (text, currency)

    @pytest.mark.parametrize("currency", ["XAU", "ZZZ"], ids=["no decimals", "not in the list"])
    def test_is_null_where_nobody_knows_where_its_point_stands(self, currency: str) -> None:
        event = json.loads(what_is_shown(transaction(currency=currency)))

        assert (event["delta"], event["balance_after"], event["currency"]) == (None, None, currency)

    def test_is_null_in_a_capture_published_without_its_currency(self) -> None:
        captured = HoldCapturedV1(
            hold_id=new_id(),
            account_id=ACCOUNT,
            user_id=ADA,
            transaction_id=new_id(),
            amount=5,
            by=ADA,
        )

        assert json.loads(what_is_shown(captured))["amount"] is None

    def test_is_every_field_of_minor_units_and_has_a_currency_beside_it(self) -> None:
        schemas = [each.model_json_schema()["properties"] for each in LogForStreams.events]
        amounts = [
            {name for name, field in fields.items() if field.get("minimum") == -(2**63)}
            | {name for name, field in fields.items() if field.get("exclusiveMaximum") == 2**63}
            for fields in schemas
        ]

        assert set().union(*amounts) == AMOUNTS
        assert all(
            "currency" in fields for fields, names in zip(schemas, amounts, strict=True) if names
        )


def transaction(*, currency: str, delta: int = 1) -> TransactionCreatedV1:
    return TransactionCreatedV1(
        transaction_id=new_id(),
        account_id=ACCOUNT,
        user_id=ADA,
        position=2,
        kind="deposit",
        currency=currency,
        delta=delta,
        balance_after=2**62,
    )


def what_is_shown(event: ShownEvent) -> str:
    return shown(event, enveloped(event, source="/accounts", subject=ACCOUNT))


class TestAPosition:
    def test_is_read_as_it_is_written(self) -> None:
        assert Position.parse(str(Position(1_767_323_045_000, 17))) == Position(
            1_767_323_045_000, 17
        )

    @pytest.mark.parametrize(
        "text", ["", "17", "1.", ".1", "1.2.3", "-1.2", "1.2\n", "\u0661.2", "1." + "9" * 19, "x.y"]
    )
    def test_is_none_in_anything_else(self, text: str) -> None:
        assert Position.parse(text) is None
