"""What is done, and what was fetched beyond that and is in nobody's hands."""

import pytest
from aiokafka import TopicPartition

from chassis.consuming.chunk import Chunk
from chassis.consuming.positions import TAIL_LOST_AFTER_S, FetchPosition, ProcessedPositions

TP = TopicPartition("t", 0)


def chunk(begin: int, end: int, epoch: int = 1) -> Chunk:
    return Chunk(TP.topic, TP.partition, begin, end, epoch, [])


@pytest.fixture
def done() -> ProcessedPositions:
    done = ProcessedPositions()
    done.start({TP: 10})
    return done


def lost_in_time(
    done: ProcessedPositions, place: FetchPosition
) -> dict[TopicPartition, FetchPosition]:
    """Look twice, as long apart as it takes."""
    done.lost({TP: place}, 0.0)
    return dict(done.lost({TP: place}, TAIL_LOST_AFTER_S))


class TestALostTail:
    def test_is_what_was_fetched_and_nobody_handles(self, done: ProcessedPositions) -> None:
        assert lost_in_time(done, FetchPosition(3, 12)) == {TP: FetchPosition(3, 10)}

    def test_is_looked_for_again_after_it_was_found(self, done: ProcessedPositions) -> None:
        lost_in_time(done, FetchPosition(3, 12))

        assert lost_in_time(done, FetchPosition(4, 12)) == {TP: FetchPosition(4, 10)}

    def test_is_none_where_all_is_done(self, done: ProcessedPositions) -> None:
        assert lost_in_time(done, FetchPosition(3, 10)) == {}

    def test_is_none_too_soon(self, done: ProcessedPositions) -> None:
        done.lost({TP: FetchPosition(3, 12)}, 0.0)

        assert done.lost({TP: FetchPosition(3, 12)}, TAIL_LOST_AFTER_S - 0.1) == {}

    def test_is_none_while_more_is_fetched(self, done: ProcessedPositions) -> None:
        done.lost({TP: FetchPosition(3, 12)}, 0.0)

        assert done.lost({TP: FetchPosition(3, 14)}, TAIL_LOST_AFTER_S) == {}

    def test_is_none_while_more_is_done(self, done: ProcessedPositions) -> None:
        done.lost({TP: FetchPosition(3, 20)}, 0.0)
        done.begin(chunk(10, 12))
        done.end(chunk(10, 12), 12)

        assert done.lost({TP: FetchPosition(3, 20)}, TAIL_LOST_AFTER_S) == {}

    def test_is_none_while_it_is_handled_however_long(self, done: ProcessedPositions) -> None:
        done.begin(chunk(10, 12))

        assert lost_in_time(done, FetchPosition(1, 12)) == {}

    def test_may_be_what_was_left_undone(self, done: ProcessedPositions) -> None:
        done.begin(chunk(10, 12))
        done.end(chunk(10, 12), None)

        assert lost_in_time(done, FetchPosition(1, 12)) == {TP: FetchPosition(1, 10)}

    def test_is_none_while_the_next_owners_chunk_is_handled(self, done: ProcessedPositions) -> None:
        done.begin(chunk(10, 12, epoch=1))
        done.begin(chunk(10, 12, epoch=2))
        done.end(chunk(10, 12, epoch=1), None)

        assert lost_in_time(done, FetchPosition(2, 12)) == {}


class TestBehind:
    def test_is_a_partition_with_more_than_what_is_done(self, done: ProcessedPositions) -> None:
        assert done.lagging({TP: 25}) == {TP: 10}

    @pytest.mark.parametrize("end", [10, None])
    def test_is_none_that_is_done_or_whose_end_is_not_known(
        self, done: ProcessedPositions, end: int | None
    ) -> None:
        assert done.lagging({TP: end}) == {}
