"""Batches as a broker returns them are parsed up to the first that can't be read."""

import struct
from collections.abc import Sequence
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, encode_varint
from hypothesis import given
from hypothesis import strategies as st

from chassis.kafka.raw_fetch import RawFetch, RawRecord, is_not_utf8, parse_batches

TP: Final = TopicPartition("t", 3)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
TRANSACTIONAL, CONTROL = 0x10, 0x20
ENCODERS: Final[dict[int, Any]] = {
    GZIP: gzip_encode,
    SNAPPY: snappy_encode,
    LZ4: lz4_encode,
    ZSTD: zstd_encode,
}
COMMIT_MARKER, ABORT_MARKER = b"\0\0\0\1", b"\0\0\0\0"

Header = tuple[bytes, bytes | None]
Content = tuple[bytes | None, bytes | None, Sequence[Header]]


def number(value: int) -> bytes:
    written = bytearray()
    encode_varint(value, written.append)
    return bytes(written)


def field(value: bytes | None) -> bytes:
    return number(-1) if value is None else number(len(value)) + value


def record(delta: int, content: Content) -> bytes:
    key, value, headers = content
    body = b"\0" + number(0) + number(delta) + field(key) + field(value) + number(len(headers))
    body += b"".join(field(name) + field(of) for name, of in headers)
    return number(len(body)) + body


def batch(
    base: int,
    contents: Sequence[Content],
    *,
    attributes: int = 0,
    producer: int = -1,
    last_delta: int | None = None,
) -> bytes:
    """A batch as the broker keeps it; with ``last_delta`` its last records are compacted away."""
    body = b"".join(record(delta, each) for delta, each in enumerate(contents))
    if codec := attributes & 0x07:
        body = bytes(ENCODERS[codec](body))
    delta = len(contents) - 1 if last_delta is None else last_delta
    covered = struct.pack(">hiqqqhii", attributes, delta, 0, 0, producer, 0, 0, len(contents))
    covered += body
    crc = calc_crc32c(covered)
    rest = struct.pack(">ibI", 0, 2, crc) + covered
    return struct.pack(">qi", base, len(rest)) + rest


def plain(*values: bytes) -> list[Content]:
    return [(b"k", value, [(b"type", b"x")]) for value in values]


def marker(base: int, key: bytes, *, producer: int) -> bytes:
    return batch(base, [(key, b"\0\0", [])], attributes=TRANSACTIONAL | CONTROL, producer=producer)


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def parsed(data: bytes, offset: int = 0, **options: Any) -> RawFetch:
    return parse_batches(TP, data, offset, options.pop("stable_offset", 1_000), **options)


def values(fetched: RawFetch) -> list[tuple[int, bytes | None]]:
    return [(each.offset, each.value) for each in fetched.records]


class TestWhatCanBeRead:
    @pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
    def test_is_returned_whatever_its_codec(self, codec: int) -> None:
        contents: list[Content] = [
            (b"k", b"v", [(b"a", b"1"), (b"b", None), (b"", b"")]),
            (None, None, []),
            (b"", b"x" * 300, []),
        ]

        fetched = parsed(batch(7, contents, attributes=codec), 7)

        assert fetched.records == [
            RawRecord("t", 3, 7, b"k", b"v", [("a", b"1"), ("b", None), ("", b"")]),
            RawRecord("t", 3, 8, None, None, []),
            RawRecord("t", 3, 9, b"", b"x" * 300, []),
        ]
        assert (fetched.end, fetched.unreadable, fetched.is_plain) == (10, None, True)

    def test_begins_at_the_offset_that_is_wanted(self) -> None:
        data = batch(5, plain(b"a", b"b", b"c")) + batch(8, plain(b"d"))

        assert values(parsed(data, 6)) == [(6, b"b"), (7, b"c"), (8, b"d")]

    def test_ends_with_as_many_records_as_are_wanted(self) -> None:
        data = batch(5, plain(b"a", b"b", b"c"))

        fetched = parsed(data, 5, max_records=2)

        assert (values(fetched), fetched.end) == ([(5, b"a"), (6, b"b")], 7)

    def test_ends_before_a_batch_that_is_cut_off_at_the_end_of_the_response(self) -> None:
        data = batch(0, plain(b"a")) + batch(1, plain(b"b"))

        fetched = parsed(data[:-1])

        assert (values(fetched), fetched.end, fetched.unreadable) == ([(0, b"a")], 1, None)

    def test_is_nothing_at_the_end_of_the_partition(self) -> None:
        fetched = parsed(b"", 4)

        assert (fetched.records, fetched.end, fetched.unreadable) == ([], 4, None)

    def test_keeps_a_name_of_a_header_that_is_not_utf_8(self) -> None:
        fetched = parsed(batch(0, [*plain(b"a"), (b"k", b"v", [(b"\xff\xfe", b"x")])]))

        [(name, _)] = fetched.records[1].headers
        assert name.encode("utf-8", "surrogateescape") == b"\xff\xfe"
        assert is_not_utf8(name)
        assert not is_not_utf8("naïve")
        assert not fetched.is_plain
        assert fetched.unreadable is None


class TestOffsetsWithoutARecord:
    def test_of_a_marker_are_passed_over(self) -> None:
        data = batch(0, plain(b"a"), attributes=TRANSACTIONAL, producer=1)
        data += marker(1, COMMIT_MARKER, producer=1)

        fetched = parsed(data)

        assert (values(fetched), fetched.end) == ([(0, b"a")], 2)

    def test_of_compacted_records_are_passed_over(self) -> None:
        fetched = parsed(batch(0, plain(b"a"), last_delta=4) + batch(9, plain(b"b")))

        assert (values(fetched), fetched.end) == ([(0, b"a"), (9, b"b")], 10)

    def test_of_an_aborted_transaction_are_passed_over(self) -> None:
        data = batch(0, plain(b"a"), attributes=TRANSACTIONAL, producer=1)
        data += batch(1, plain(b"b"), attributes=TRANSACTIONAL, producer=2)
        data += batch(2, plain(b"c"))
        data += marker(3, ABORT_MARKER, producer=1)
        data += marker(4, COMMIT_MARKER, producer=2)
        data += batch(5, plain(b"d"), attributes=TRANSACTIONAL, producer=1)

        fetched = parsed(data, aborted=[(1, 0)])

        assert values(fetched) == [(1, b"b"), (2, b"c"), (5, b"d")]
        assert fetched.end == 6


class TestABatchThatCannotBeRead:
    GOOD: Final = batch(0, plain(b"a", b"b"))
    NEXT: Final = batch(5, plain(b"f"))

    def test_with_a_flipped_bit_is_returned_with_what_comes_before_it(self) -> None:
        bad = flipped(batch(2, plain(b"c", b"d", b"e")), -5)

        fetched = parsed(self.GOOD + bad + self.NEXT)

        assert (values(fetched), fetched.end) == ([(0, b"a"), (1, b"b")], 2)
        unreadable = fetched.unreadable
        assert unreadable is not None
        assert (unreadable.offset, unreadable.end, unreadable.raw) == (2, 5, bad)
        assert unreadable.reason == "its CRC does not match"

    @pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
    def test_that_can_not_be_decompressed_is_one(self, codec: int) -> None:
        data = bytearray(batch(2, plain(b"c"), attributes=codec))
        data[61:] = b"\x99" * len(data[61:])
        data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4)

        fetched = parsed(bytes(data) + self.NEXT, 2)

        assert fetched.unreadable is not None
        assert (fetched.end, fetched.unreadable.end) == (2, 3)

    def test_of_an_unknown_codec_or_format_is_one(self) -> None:
        data = bytearray(batch(2, plain(b"c")))
        data[22] = 7
        data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4)
        old = bytearray(batch(2, plain(b"c")))
        old[16] = 1

        for each, reason in ((data, "its codec is 7"), (old, "its format is 1, not 2")):
            unreadable = parsed(bytes(each) + self.NEXT, 2).unreadable
            assert unreadable is not None
            assert unreadable.reason == reason

    def test_gives_the_records_before_the_one_that_is_wrong(self) -> None:
        data = bytearray(batch(2, plain(b"c", b"d", b"e")))
        data[61 + 2 * len(record(0, plain(b"c")[0]))] += 2  # the last one's length
        data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4)

        fetched = parsed(bytes(data) + self.NEXT, 2)

        assert values(fetched) == [(2, b"c"), (3, b"d")]
        assert fetched.unreadable is not None
        assert (fetched.end, fetched.unreadable.offset, fetched.unreadable.end) == (4, 4, 5)

    def test_of_which_the_broker_returns_a_part_only_is_one(self) -> None:
        fetched = parsed(batch(2, plain(b"c"))[:-3], 2, stable_offset=3)

        assert fetched.unreadable is not None
        assert fetched.unreadable.reason == "the broker does not return all of it"
        assert fetched.unreadable.end == 3

    def test_of_a_length_that_can_not_be_is_one(self) -> None:
        data = bytearray(batch(2, plain(b"c")))
        data[8:12] = (7).to_bytes(4)

        unreadable = parsed(bytes(data), 2).unreadable

        assert unreadable is not None
        assert (unreadable.reason, unreadable.end) == ("its length is wrong", None)

    def test_whose_offset_was_changed_is_one(self) -> None:
        for offset in (0, 2_000):
            unreadable = parsed(batch(offset, plain(b"c")) + self.NEXT, 2).unreadable
            assert unreadable is not None
            assert unreadable.reason == "its offsets are not those that come next"


class TestWhereItEnds:
    def bad(self, last_delta: int) -> bytes:
        return flipped(batch(2, plain(b"c"), last_delta=last_delta), -1)

    def test_is_what_it_says_where_the_next_batch_agrees(self) -> None:
        assert self.end(self.bad(2) + batch(5, plain(b"f"))) == 5

    def test_is_where_the_next_batch_begins_when_it_says_more(self) -> None:
        assert self.end(self.bad(200) + batch(5, plain(b"f"))) == 5

    def test_is_the_end_of_the_partition_when_it_says_so(self) -> None:
        assert self.end(self.bad(2), stable_offset=5) == 5

    def test_is_not_known_when_neither_agrees(self) -> None:
        assert self.end(self.bad(2), stable_offset=9) is None
        assert self.end(self.bad(-9), stable_offset=9) is None
        assert self.end(self.bad(2) + batch(1, plain(b"f")), stable_offset=9) is None

    def end(self, data: bytes, **options: Any) -> int | None:
        unreadable = parsed(data, 2, **options).unreadable
        assert unreadable is not None
        return unreadable.end


_contents: Final = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=200),
        st.lists(
            st.tuples(st.text(max_size=5).map(str.encode), st.none() | st.binary(max_size=9)),
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=4,
)


class TestBesideAiokafka:
    @given(
        st.lists(st.tuples(_contents, st.sampled_from([0, GZIP, SNAPPY, LZ4, ZSTD])), max_size=4)
    )
    def test_finds_the_same_records(self, batches: list[tuple[list[Content], int]]) -> None:
        data, base = b"", 0
        for contents, codec in batches:
            data += batch(base, contents, attributes=codec)
            base += len(contents)
        theirs, batches_ = [], MemoryRecords(data)
        while batches_.has_next():
            found: Any = batches_.next_batch()
            assert found.validate_crc()
            theirs += [(r.offset, r.key, r.value, list(r.headers)) for r in found]

        fetched = parsed(data)

        assert [(r.offset, r.key, r.value, r.headers) for r in fetched.records] == theirs

    @given(_contents, st.sampled_from([0, GZIP, LZ4]), st.data())
    def test_any_damage_is_a_reason_and_no_error(
        self, contents: list[Content], codec: int, data: st.DataObject
    ) -> None:
        good = batch(0, plain(b"a"))
        damaged = bytearray(batch(1, contents, attributes=codec))
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # what a producer has written like this
            damaged[17:21] = calc_crc32c(bytes(damaged[21:])).to_bytes(4)

        fetched = parsed(good + bytes(damaged) + batch(1 + len(contents), plain(b"z")))

        assert values(fetched)[0] == (0, b"a")
        offsets = [each.offset for each in fetched.records]
        assert offsets == sorted(set(offsets))
        if fetched.unreadable is not None:
            assert fetched.unreadable.offset == fetched.end
            end = fetched.unreadable.end
            assert end is None or fetched.end < end <= fetched.stable_offset
