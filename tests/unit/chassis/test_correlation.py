"""The correlation of a request, through all work that follows from it."""

import asyncio

import pytest

from chassis.correlation import (
    CorrelationContext,
    correlation_or_none,
    current_correlation,
    new_id,
    use_correlation,
)


class TestIds:
    def test_are_in_the_order_of_their_time(self) -> None:
        ids = [new_id() for _ in range(1_000)]

        assert ids == sorted(ids)
        assert {each.version for each in ids} == {7}


class TestACorrelation:
    def test_takes_the_id_that_the_client_sent(self) -> None:
        assert CorrelationContext.from_request("abc-123").correlation_id == "abc-123"

    @pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "line\nbreak", "ü"])
    def test_has_a_new_id_when_the_clients_is_not_acceptable(self, sent: str | None) -> None:
        assert CorrelationContext.from_request(sent).correlation_id != sent

    def test_is_the_current_one_only_inside_its_block(self) -> None:
        with use_correlation(CorrelationContext("outer")):
            with use_correlation(CorrelationContext("inner")):
                assert current_correlation() == CorrelationContext("inner")
            assert current_correlation() == CorrelationContext("outer")
        assert correlation_or_none() is None

    async def test_is_separate_for_each_task(self) -> None:
        async def look(name: str) -> str:
            with use_correlation(CorrelationContext(name)):
                await asyncio.sleep(0)
                return current_correlation().correlation_id

        assert list(await asyncio.gather(look("a"), look("b"))) == ["a", "b"]

    async def test_is_made_once_for_work_without_one(self) -> None:
        async def work() -> tuple[CorrelationContext, CorrelationContext]:
            return current_correlation(), current_correlation()

        first, second = await asyncio.create_task(work())

        assert first == second
        assert correlation_or_none() is None
