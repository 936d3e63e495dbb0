"""A broker that shows later, or never, what it was told to create."""

import pytest

from chassis.kafka.shown import NotShown, until_shown


class TestUntilShown:
    async def test_asks_until_nothing_is_missing(self) -> None:
        answers = [["a", "b"], ["b"], []]

        async def missing() -> list[str]:
            return answers.pop(0)

        await until_shown(missing)

        assert answers == []

    async def test_names_what_is_missing_still_when_the_time_is_over(self) -> None:
        async def missing() -> list[str]:
            return ["a", "b"]

        with pytest.raises(NotShown, match="a, b"):
            await until_shown(missing, within_s=0)
