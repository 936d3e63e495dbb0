"""Changes what a broker has on its disk, as a disk that fails does.

A running broker serves the changed bytes, and so does one that was stopped in order. One that was
killed checks its newest segments when it starts again, and cuts off what is damaged.
"""

import struct
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct(">qi")
_LENGTH_AT: Final = 8


def flip_a_bit(directory: Path, topic: str, partition: int, offset: int) -> None:
    """Flip the last bit of the batch that begins at an offset, which its CRC covers."""
    segment, _, end = _batch(directory, topic, partition, offset)
    with segment.open("r+b") as file:
        file.seek(end - 1)
        byte = file.read(1)[0]
        file.seek(end - 1)
        file.write(bytes([byte ^ 1]))


def break_the_length(directory: Path, topic: str, partition: int, offset: int) -> None:
    """Make the length of the batch that begins at an offset one that no broker accepts."""
    segment, begin, _ = _batch(directory, topic, partition, offset)
    with segment.open("r+b") as file:
        file.seek(begin + _LENGTH_AT)
        file.write((3).to_bytes(4))


def _batch(directory: Path, topic: str, partition: int, offset: int) -> tuple[Path, int, int]:
    """Return a batch's segment, and its begin and end in that."""
    for segment in sorted(directory.rglob(f"{topic}-{partition}/*.log")):
        data = segment.read_bytes()
        position = 0
        while position + _HEADER.size <= len(data):
            base_offset, length = _HEADER.unpack_from(data, position)
            end = position + _HEADER.size + length
            if length <= 0:
                break  # the rest of the segment is not written yet
            if base_offset == offset:
                return segment, position, end
            position = end
    raise LookupError(f"no batch of {topic}[{partition}] begins at {offset}")
