"""A file that is written once, from start to end, and knows the checksum of what went into it."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

from streamgauge.store import fs


class ChecksummedFile(io.RawIOBase):
    """A new file as pyarrow wants one. What comes after `close` is dropped."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path
        self._checksum = 0
        self._descriptor = fs.create(path)

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        if not self.closed:
            fs.write(self._descriptor, [content], self._path)
            self._checksum = zlib.crc32(content, self._checksum)
            self.size += len(content)
        return len(content)

    def tell(self) -> int:
        return self.size

    def take_checksum(self) -> int:
        checksum, self._checksum = self._checksum, 0
        return checksum

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
