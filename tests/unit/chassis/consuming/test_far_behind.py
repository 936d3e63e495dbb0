"""A subscriber that is far behind the others of its topic is left to a replay."""

from collections.abc import Mapping

import pytest
from aiokafka import TopicPartition

from chassis.consuming.chunk import ChunkRefused
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.offsets import SubscriberOffset
from chassis.testing import FakeRecord, chunk_of

TP = TopicPartition("a-topic", 0)


def at(offsets: Mapping[str, int], *paused: str) -> list[SubscriberOffset]:
    return [
        SubscriberOffset(name, TP, offset, name in paused, held_because=None)
        for name, offset in offsets.items()
    ]


def looking(offsets: Mapping[str, int], *paused: str, events: int = 100) -> FarBehind:
    far_behind = FarBehind(events)
    far_behind.look([TP], at(offsets, *paused))
    return far_behind


class TestWhoIsFarBehind:
    def test_is_further_behind_the_first_of_the_others_than_the_limit(self) -> None:
        assert looking({"first": 201, "near": 101, "far": 100}).at(TP) == {"far"}

    def test_is_not_the_only_one_however_long_the_topic_is(self) -> None:
        assert not looking({"alone": 0}).at(TP)

    def test_is_not_one_that_only_paused_ones_are_ahead_of(self) -> None:
        assert not looking({"paused": 1_000, "far": 0}, "paused").at(TP)

    def test_stays_so_until_it_has_caught_up(self) -> None:
        far_behind = looking({"first": 1_000, "far": 0})

        far_behind.look([TP], at({"first": 1_000, "far": 950}))

        assert far_behind.at(TP) == {"far"}
        far_behind.forget(TP, "far")
        far_behind.look([TP], at({"first": 1_000, "far": 950}))
        assert not far_behind.at(TP)

    def test_is_left_to_the_agent_again_once_it_is_paused_or_holds_up_no_other(self) -> None:
        far_behind = looking({"first": 1_000, "far": 0})
        far_behind.look([TP], at({"first": 1_000, "far": 0}, "far"))
        assert not far_behind.at(TP)

        far_behind = looking({"first": 1_000, "far": 0})
        far_behind.look([TP], at({"first": 1_000, "far": 0}, "first"))
        assert not far_behind.at(TP)

    def test_is_decided_for_each_partition_by_itself(self) -> None:
        far_behind = looking({"first": 1_000, "far": 0})

        far_behind.look([TopicPartition("a-topic", 1)], at({"first": 1_000, "far": 0}))

        assert far_behind.partitions() == [TP]


class TestAChunk:
    chunk = chunk_of([FakeRecord("a-topic", 0, 500, b"", b"", [])])

    def test_is_given_to_those_that_have_come_to_it(self) -> None:
        given = FarBehind(100).at_chunk(self.chunk, {"one": 500, "two": 501})

        assert given == {"one": 500, "two": 501}

    def test_is_not_given_to_one_far_behind_which_is_left_to_a_replay(self) -> None:
        far_behind = FarBehind(100)

        assert far_behind.at_chunk(self.chunk, {"one": 500, "far": 399}) == {"one": 500}
        assert far_behind.at(TP) == {"far"}

    def test_is_refused_where_one_is_near_and_has_not_come_to_it(self) -> None:
        with pytest.raises(ChunkRefused) as refused:
            FarBehind(100).at_chunk(self.chunk, {"one": 500, "near": 450, "far": 10})

        assert refused.value.next_offset == 450

    def test_is_refused_where_all_have_the_same_gap(self) -> None:
        with pytest.raises(ChunkRefused):
            FarBehind(100).at_chunk(self.chunk, {"one": 10, "two": 10})

    def test_is_still_given_to_one_whose_progress_it_has_moved(self) -> None:
        far_behind = FarBehind(100)

        given = far_behind.at_chunk(self.chunk, {"first": 900, "moved": 500, "far": 10})

        assert given == {"first": 900, "moved": 500}
        assert far_behind.at(TP) == {"moved", "far"}
