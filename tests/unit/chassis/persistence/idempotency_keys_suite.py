"""The tests of every ``IdempotencyKeys``, in memory or in PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chassis.persistence.idempotency_keys import KEEP, IdempotencyKeys, ScopedKey, StoredAnswer

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = ScopedKey("ann", "POST /toys", "key-1")
ANSWER = StoredAnswer(b"\x00\xff", 201, {"location": "/toys/1"}, b'{"n": 1}')


class IdempotencyKeysSuite:
    async def test_a_new_key_has_no_answer(self, keys: IdempotencyKeys) -> None:
        assert await keys.claim(KEY, NOW) is None

    async def test_a_stored_answer_is_returned(self, keys: IdempotencyKeys) -> None:
        await keys.claim(KEY, NOW)
        await keys.remember(KEY, ANSWER, NOW)

        assert await keys.claim(KEY, NOW) == ANSWER
        assert await keys.claim(KEY, NOW + timedelta(hours=23)) == ANSWER

    @pytest.mark.parametrize("field", ["principal", "route", "key"])
    async def test_a_key_with_another_scope_is_another_key(
        self, keys: IdempotencyKeys, field: str
    ) -> None:
        await keys.claim(KEY, NOW)
        await keys.remember(KEY, ANSWER, NOW)

        assert await keys.claim(replace(KEY, **{field: "other"}), NOW) is None

    async def test_an_expired_key_can_be_claimed_again(self, keys: IdempotencyKeys) -> None:
        later = NOW + KEEP
        newer = replace(ANSWER, body=b"2")
        await keys.claim(KEY, NOW)
        await keys.remember(KEY, ANSWER, NOW)

        assert await keys.claim(KEY, later) is None
        await keys.remember(KEY, newer, later)

        assert await keys.claim(KEY, later + timedelta(hours=23)) == newer

    async def test_a_claim_that_was_not_answered_can_be_claimed_again(
        self, keys: IdempotencyKeys
    ) -> None:
        await keys.claim(KEY, NOW)

        assert await keys.claim(KEY, NOW) is None
