"""How CPython and glibc are told to spend less on memory that a service does not keep.

Two settings of the whole process, each measured on the event path:

- The garbage collector looks at what was imported never again, and at new objects less often. A
  request or a chunk makes thousands of objects and hardly a cycle; with Python's own thresholds a
  seventh of a command's processor time went into looking at them again and again.
- glibc gives the buffer of a fetch or a batch back to the system as soon as it is freed. Left alone
  it raises its threshold with each large buffer that is freed, and a consumer grew by an eighth.
"""

import ctypes
import gc
import platform

# New objects, then collections of the younger generation before one of the next older.
_COLLECT_AFTER = (5_000, 10, 10)
# An option of mallopt(3): from this size on a buffer is given back as soon as it is free.
_M_MMAP_THRESHOLD = -3
_GIVEN_BACK_FROM_BYTES = 64 * 1024


def tune() -> None:
    """Set both; to be called once, when everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_FROM_BYTES)
