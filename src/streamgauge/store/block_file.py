"""A file of a block, which is open only as long as somebody has use for it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from streamgauge.errors import Corrupt, Unreadable
from streamgauge.store.disk_errors import storage_error
from streamgauge.store.failpoints import hit

_FILE_IS_TO_BLAME = (None, errno.EIO, errno.ENOENT)
"""Arrow says what it cannot decode by an OSError without a number."""


class BlockFile:
    """Opened when it is read, and as often as it has been let go. size: bytes that it must have.

    Raises what Arrow raises, and ValueError: to be used under `reading`.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._file: pa.OSFile | None = None
        self._closed = False

    def opened(self) -> pa.OSFile:
        """Valid until `rest`."""
        if self._file is None:
            if self._closed:
                raise ValueError("the block has been closed")
            hit("fs.open")
            file = pa.OSFile(str(self._path), "r")
            if file.size() != self._size:
                file.close()
                raise ValueError(f"it has {file.size()} bytes, not {self._size}")
            self._file = file
        return self._file

    def read(self, start: int, stop: int) -> bytes:
        file = self.opened()
        file.seek(start)
        content: bytes = file.read(stop - start)
        return content

    def rest(self) -> None:
        """Let its descriptor go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """For good."""
        self._closed = True
        self.rest()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate what goes wrong in reading a file of a block: to Corrupt, naming both, where the file is to blame or
    is missing, to Unreadable where the disk is; to another StorageError where the system is, as when it has no
    descriptor left."""
    try:
        yield
    except MemoryError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno not in _FILE_IS_TO_BLAME:
            raise storage_error(error, f"read {path}") from error
        kind = Unreadable if isinstance(error, OSError) and error.errno == errno.EIO else Corrupt
        raise kind(f"block {path.parent.name}: {path.name} cannot be read: {error}") from error
