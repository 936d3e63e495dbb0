"""How long a process that died waits for its next start."""

from local_cluster.supervisor import pause_s


class TestBackOff:
    def test_after_a_healthy_life_it_starts_again_at_once(self) -> None:
        assert pause_s(0) == 0

    def test_it_grows_with_each_early_death(self) -> None:
        assert [pause_s(deaths) for deaths in (1, 2, 3)] == [0.5, 1.0, 2.0]

    def test_it_never_exceeds_three_seconds(self) -> None:
        assert {pause_s(deaths) for deaths in (4, 10, 100, 100_000)} == {3.0}
