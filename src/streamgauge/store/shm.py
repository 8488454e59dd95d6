"""Shared memory: blocks of bytes that the server fills and query workers read, found by name.

The server creates segments through a `SharedMemory` named after its store; workers attach read-only. A segment's
memory is really there from the start: a sparse one on a /dev/shm that is too small ends in SIGBUS at the first write
to a missing page, which nothing can catch.

A mapping lives as long as the last array made from it, so nothing is ever closed under a reader. Python's own
`multiprocessing.shared_memory` is not used for two reasons: closing it raises while an array exists, and before 3.13
it registers a segment with the resource tracker on attaching too, so that a worker's exit could unlink memory that the
server still uses. Segments are registered where they are created, and only there: if the server is killed, the
tracker, which outlives it and its workers, removes them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing import resource_tracker

import numpy as np
import numpy.typing as npt

from streamgauge.errors import Overloaded, StorageError
from streamgauge.store.shm_names import LINUX_FOLDER, TRACKED, Claim

if sys.platform == "win32":
    import _winapi
else:
    import _posixshmem  # type: ignore[import-not-found, unused-ignore]

_NO_ROOM = {errno.ENOSPC, errno.ENOMEM, errno.EFBIG} | ({errno.EDQUOT} if sys.platform != "win32" else set())
"""EFBIG: the process's own limit, which counts shared memory as files."""


IDLE_BYTES = 48 << 20
"""Of recycled segments that are kept, small ones first. To touch a page for the first time takes 4 µs, as the kernel
has to clear it: without them the head spends more time on that than on sorting."""
_WASTED = 4  # a segment is taken where all but a fourth of it is needed
_SIZE_BITS = 5  # of the sizes of those that may be recycled, behind which there are zeros
_CAN_RENAME = sys.platform.startswith("linux")


class Segment:
    """One mapped segment. Whoever holds an array of it holds the mapping."""

    def __init__(self, name: str, size: int, mapping: mmap.mmap, *, writable: bool) -> None:
        self.name = name
        self.size = size
        self._mapping = mapping
        self._writable = writable

    def array(self, dtype: npt.DTypeLike, offset: int, count: int) -> npt.NDArray[np.generic]:
        """`count` items of `dtype` from byte `offset` on, without a copy; read-only in a reader."""
        view: npt.NDArray[np.generic] = np.frombuffer(self._mapping, dtype, count, offset)
        if not self._writable:
            view.flags.writeable = False  # mappings are writable on Windows
        return view

    def renamed(self, name: str) -> Segment:
        """The same memory under another name."""
        return Segment(name, self.size, self._mapping, writable=self._writable)

    def unmap(self) -> None:
        """Unmap it now, unless an array of it exists: then that happens with the last of them."""
        with contextlib.suppress(BufferError):
            self._mapping.close()


class SharedMemory:
    """Creates and removes the segments of one server. `create` and `remove` may be called on any thread.

    A name is a prefix that is the server's own (`shm_names`) and a sequence: at most 25 characters and up to four more
    by the caller, since macOS allows 30 with a slash. The prefix keeps a new server's names apart from those that a
    killed one's resource tracker has yet to remove.

    Raises StorageError when no prefix can be had.
    """

    def __init__(self, store_id: str) -> None:
        try:
            self._claim = Claim(store_id)
        except OSError as error:
            raise StorageError(
                f"cannot use shared memory: {error}. Look at the rights on /dev/shm and its size"
            ) from error
        self._sequence = itertools.count()
        self._live: dict[str, Segment] = {}
        self._idle: list[Segment] = []  # recycled ones; protected by _lock
        self._lock = threading.Lock()
        # Giving 20 MB back to the system takes 4 ms, without the interpreter's lock: not on the event loop.
        self._unmapping = ThreadPoolExecutor(1, "unmap")

    @property
    def used_bytes(self) -> int:
        """Shared memory in use at this moment, in bytes: without what was recycled."""
        return sum(segment.size for segment in list(self._live.values()))

    def new_name(self) -> str:
        """A name that was never given before."""
        return f"{self._claim.prefix}{next(self._sequence):x}"

    def create(self, size: int, name: str = "") -> Segment:
        """A zeroed, writable segment of `size` bytes, all of it allocated.

        Raises Overloaded when there is no room for it and StorageError for any other failure.
        """
        name = name or self.new_name()
        try:
            segment = Segment(name, size, _create(name, size), writable=True)
        except OSError as error:
            if error.errno in _NO_ROOM and self._drop_idle():
                return self.create(size, name)
            if error.errno in _NO_ROOM:
                raise Overloaded(
                    f"no room for {size} more bytes of shared memory beside the {self.used_bytes} in use: enlarge "
                    "/dev/shm (in a container: --shm-size) or lower the number of samples kept in memory",
                    retry_after=5,
                ) from error
            raise StorageError(f"cannot create shared memory {name} of {size} bytes: {error}") from error
        self._live[name] = segment
        return segment

    def remove(self, name: str) -> None:
        """Remove a segment's name, and soon its mapping; its memory goes with the last one. A name twice removed is no
        error."""
        segment = self._live.pop(name, None)
        if segment is not None:
            self._drop(segment)

    def take(self, size: int) -> Segment:
        """`create` for who writes before anything is read: what is in the segment may be anything, and it may be
        somewhat larger. It is one that was recycled, where there is one: its pages are there already, and mapped."""
        with self._lock:
            # The smallest comes first.
            found = next((one for one in self._idle if size <= one.size <= size + size // _WASTED), None)
            if found is not None:
                self._idle.remove(found)
        if found is None or not _rename(found.name, name := self.new_name()):
            step = 1 << max(size.bit_length() - _SIZE_BITS, 0)  # else the next might just not fit
            return self.create(-(-size // step) * step)
        segment = self._live[name] = found.renamed(name)
        return segment

    def recycle(self, name: str) -> None:
        """`remove` for a segment that nobody reads any more, not even to throw away what he reads: `take` may give its
        memory to somebody else."""
        if not _CAN_RENAME:
            self.remove(name)
            return
        excess: list[Segment] = []
        with self._lock:
            segment = self._live.pop(name, None)
            if segment is not None:
                self._idle.append(segment)
                self._idle.sort(key=lambda one: one.size)
                while sum(one.size for one in self._idle) > IDLE_BYTES:
                    excess.append(self._idle.pop())
        for one in excess:
            self._drop(one)

    def close(self) -> None:
        """Remove every segment that is left."""
        for name in list(self._live):
            self.remove(name)
        self._drop_idle()
        self._unmapping.shutdown()
        self._claim.release()

    def _drop_idle(self) -> bool:
        """Give back what was recycled, and wait for that: only with its mapping its memory goes. False when there was
        nothing."""
        with self._lock:
            idle, self._idle = self._idle, []
        wait([self._drop(segment) for segment in idle])
        return bool(idle)

    def _drop(self, segment: Segment) -> Future[None]:
        _unlink(segment.name)
        return self._unmapping.submit(segment.unmap)


def attach(name: str, size: int) -> Segment:
    """Map an existing segment for reading. Raises StorageError when it is not there or is smaller than `size`."""
    try:
        return Segment(name, size, _attach(name, size), writable=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {size} bytes of shared memory {name}: {error}") from error


def room() -> int | None:
    """Bytes that are free for segments; None where nothing but the memory of the machine limits them."""
    if sys.platform == "win32" or not LINUX_FOLDER.is_dir():
        return None
    found = os.statvfs(LINUX_FOLDER)
    return found.f_bavail * found.f_frsize


if sys.platform == "win32":

    def _create(name: str, size: int) -> mmap.mmap:
        # Backed by the paging file, which Windows commits at once; the memory goes with the last mapping.
        return mmap.mmap(-1, size, tagname=name)

    def _attach(name: str, size: int) -> mmap.mmap:
        # mmap would quietly create a segment that is not there.
        _winapi.CloseHandle(_winapi.OpenFileMapping(_winapi.FILE_MAP_READ, False, name))
        return mmap.mmap(-1, size, tagname=name)

    def _unlink(name: str) -> None:
        pass

    def _rename(old: str, new: str) -> bool:
        return False

else:

    def _create(name: str, size: int) -> mmap.mmap:
        fd = _posixshmem.shm_open(f"/{name}", os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
        resource_tracker.register(f"/{name}", TRACKED)
        try:
            return _allocate(fd, size)
        except BaseException:
            _unlink(name)
            raise
        finally:
            os.close(fd)

    def _allocate(fd: int, size: int) -> mmap.mmap:
        os.ftruncate(fd, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
            return mmap.mmap(fd, size)
        mapping = mmap.mmap(fd, size)
        for page in range(0, size, mmap.PAGESIZE):
            mapping[page] = 0
        return mapping

    def _attach(name: str, size: int) -> mmap.mmap:
        fd = _posixshmem.shm_open(f"/{name}", os.O_RDONLY, mode=0)
        try:
            return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)

    def _unlink(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _posixshmem.shm_unlink(f"/{name}")
        resource_tracker.unregister(f"/{name}", TRACKED)

    def _rename(old: str, new: str) -> bool:
        """False when the old name has gone, as somebody else has removed it."""
        resource_tracker.register(f"/{new}", TRACKED)
        try:
            os.rename(LINUX_FOLDER / old, LINUX_FOLDER / new)
        except FileNotFoundError:
            resource_tracker.unregister(f"/{new}", TRACKED)
            return False
        finally:
            resource_tracker.unregister(f"/{old}", TRACKED)
        return True
