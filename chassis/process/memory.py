"""Settings of CPython and glibc that reduce what a process spends on short-lived memory.

Two settings of the whole process, each measured on the event path:

- The garbage collector no longer examines what was imported, and examines new objects less often.
  A request or a chunk makes thousands of objects and hardly any reference cycle. With Python's own
  thresholds the collector took a seventh of a command's processor time.
- glibc returns the buffer of a fetch or a batch to the system as soon as it is freed. By default
  it raises its threshold with each large buffer that is freed, and a consumer's memory grew by an
  eighth.
"""

import ctypes
import gc
import platform

# New objects, then collections of the younger generation before one of the next older.
_COLLECT_AFTER = (5_000, 10, 10)
# An option of mallopt(3): a buffer of this size or more is returned as soon as it is freed.
_M_MMAP_THRESHOLD = -3
_RETURNED_FROM_BYTES = 64 * 1024


def tune() -> None:
    """Apply both settings; to be called once, when everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _RETURNED_FROM_BYTES)
