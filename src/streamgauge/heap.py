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


def keep_freed(size: int) -> None:
    """Have malloc reuse what arrays of up to `size` bytes, at most 32 MiB less 64 KiB, give back.

    glibc returns large blocks to the kernel at once and takes fresh pages for the next array, which made evaluation of
    queries up to four times slower. It stops doing so for blocks up to the size of the largest that it has seen freed.
    This one is never touched, so it costs no memory.
    """
    import numpy as np

    np.empty(size, np.uint8)
