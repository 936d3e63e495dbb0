"""The stand-in keeps what its API document says."""

from tests.documents import assert_keeps_its_document
from tests.integration.notification_service.stand_in import running_stand_in


async def test_is_kept_for_requests_that_nobody_would_type() -> None:
    async with running_stand_in() as stand_in:
        url = str(stand_in.client.base_url).rstrip("/")
        await assert_keeps_its_document(url, {}, examples=5)
