"""What the C library's allocator does with memory that is free. For processes that take and free much at a time."""

from __future__ import annotations

import contextlib
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""


def keep_free_memory(heap: int, mapped: int) -> None:
    """Keep `heap` bytes at the end of the heap, and give arrays of more than `mapped` bytes alone a mapping of their
    own.

    By itself glibc gives back what an array took as soon as it is free, and takes it anew, page by page, for the next
    one. Elsewhere than in glibc there is nothing to be set.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_TRIM_THRESHOLD, heap)
        set_option(_M_MMAP_THRESHOLD, mapped)
