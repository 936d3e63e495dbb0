from accounts_service.application.integration_events import translate
from accounts_service.domain.account import AccountOpened
from chassis.correlation import new_id
from contracts.accounts import AccountOpenedV1

from .making import NOW


def test_an_opened_account_is_published() -> None:
    account_id, user_id = new_id(), new_id()

    published = translate(
        AccountOpened(account_id=account_id, user_id=user_id, currency="USD", occurred_at=NOW)
    )

    assert published == [AccountOpenedV1(account_id=account_id, user_id=user_id, currency="USD")]
