"""How far partitions are processed, and what was fetched beyond that and got lost."""

import pytest
from aiokafka import TopicPartition

from chassis.consuming.chunk import Chunk
from chassis.consuming.positions import TAIL_LOST_AFTER_S, FetchPosition, ProcessedPositions

TP = TopicPartition("t", 0)


def chunk(begin: int, end: int, epoch: int = 1) -> Chunk:
    return Chunk(TP.topic, TP.partition, begin, end, epoch, [])


@pytest.fixture
def processed() -> ProcessedPositions:
    positions = ProcessedPositions()
    positions.start({TP: 10})
    return positions


def lost_in_time(
    processed: ProcessedPositions, position: FetchPosition
) -> dict[TopicPartition, FetchPosition]:
    """Look twice, as long apart as it takes."""
    processed.lost({TP: position}, 0.0)
    return dict(processed.lost({TP: position}, TAIL_LOST_AFTER_S))


class TestALostTail:
    def test_is_what_was_fetched_and_is_not_in_progress(
        self, processed: ProcessedPositions
    ) -> None:
        assert lost_in_time(processed, FetchPosition(3, 12)) == {TP: FetchPosition(3, 10)}

    def test_is_looked_for_again_after_it_was_found(self, processed: ProcessedPositions) -> None:
        lost_in_time(processed, FetchPosition(3, 12))

        assert lost_in_time(processed, FetchPosition(4, 12)) == {TP: FetchPosition(4, 10)}

    def test_is_none_where_all_is_done(self, processed: ProcessedPositions) -> None:
        assert lost_in_time(processed, FetchPosition(3, 10)) == {}

    def test_is_none_too_soon(self, processed: ProcessedPositions) -> None:
        processed.lost({TP: FetchPosition(3, 12)}, 0.0)

        assert processed.lost({TP: FetchPosition(3, 12)}, TAIL_LOST_AFTER_S - 0.1) == {}

    def test_is_none_while_more_is_fetched(self, processed: ProcessedPositions) -> None:
        processed.lost({TP: FetchPosition(3, 12)}, 0.0)

        assert processed.lost({TP: FetchPosition(3, 14)}, TAIL_LOST_AFTER_S) == {}

    def test_is_none_while_more_is_done(self, processed: ProcessedPositions) -> None:
        processed.lost({TP: FetchPosition(3, 20)}, 0.0)
        processed.begin(chunk(10, 12))
        processed.end(chunk(10, 12), 12)

        assert processed.lost({TP: FetchPosition(3, 20)}, TAIL_LOST_AFTER_S) == {}

    def test_is_none_while_it_is_handled_however_long(self, processed: ProcessedPositions) -> None:
        processed.begin(chunk(10, 12))

        assert lost_in_time(processed, FetchPosition(1, 12)) == {}

    def test_may_be_what_was_left_undone(self, processed: ProcessedPositions) -> None:
        processed.begin(chunk(10, 12))
        processed.end(chunk(10, 12), None)

        assert lost_in_time(processed, FetchPosition(1, 12)) == {TP: FetchPosition(1, 10)}

    def test_is_none_while_the_next_owners_chunk_is_handled(
        self, processed: ProcessedPositions
    ) -> None:
        processed.begin(chunk(10, 12, epoch=1))
        processed.begin(chunk(10, 12, epoch=2))
        processed.end(chunk(10, 12, epoch=1), None)

        assert lost_in_time(processed, FetchPosition(2, 12)) == {}


class TestBehind:
    def test_is_a_partition_with_more_than_what_is_done(
        self, processed: ProcessedPositions
    ) -> None:
        assert processed.lagging({TP: 25}) == {TP: 10}

    @pytest.mark.parametrize("end", [10, None])
    def test_is_no_partition_that_is_processed_or_has_an_unknown_end(
        self, processed: ProcessedPositions, end: int | None
    ) -> None:
        assert processed.lagging({TP: end}) == {}
