"""A file, or standard input, as a stream of bytes: decompressed on the way, looked ahead into, and counted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa

from streamgauge.errors import BadInput, NotFound

STDIN = "-"
_MAGIC: dict[bytes, Literal["gzip", "zstd"]] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SKIP_BYTES = 8 << 20


class Stream:
    """Opened by `open_stream`; closed by its user."""

    def __init__(self, raw: BinaryIO, name: str, size: int | None) -> None:
        self.name = name
        self.size = size  # bytes, compressed; None where it is not known
        self._raw = _Counted(raw)
        start = self._raw.peek(4)
        codec = next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), None)
        self._seekable = codec is None and raw.seekable()
        self._source: Any = self._raw
        if codec is not None:
            self._source = pa.CompressedInputStream(pa.PythonFile(cast("Any", self._raw), mode="r"), codec)
        self._ahead = b""

    @property
    def position(self) -> int:
        """Bytes taken from the file, compressed."""
        return self._raw.count

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, or what there is up to the end. Raises BadInput as `read` does."""
        while len(self._ahead) < size and (more := self._take(size - len(self._ahead))):
            self._ahead += more
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end. Raises BadInput when the compression is damaged or cut off."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._take(size)

    def readinto(self, buffer: memoryview) -> int:
        """Read what fits; how many bytes that were, none at the end. Raises BadInput as `read` does."""
        if self._ahead:
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        with self._reading():
            return int(self._source.readinto(buffer))

    def skip(self, size: int) -> None:
        """Go on so many bytes later."""
        if self._seekable and not self._ahead:
            self._raw.seek(size)
            return
        while size and (data := self.read(min(size, _SKIP_BYTES))):
            size -= len(data)

    def _take(self, size: int) -> bytes:
        with self._reading():
            return bytes(self._source.read(size))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{self.name}: cannot be read any further: {str(error).splitlines()[0]}") from None

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()


def open_stream(name: str) -> Stream:
    """The file `name`, or standard input. Raises NotFound."""
    if name == STDIN:
        return Stream(cast("BinaryIO", sys.stdin.buffer), "standard input", None)
    try:
        size = Path(name).stat().st_size
        raw = open(name, "rb", buffering=1 << 16)  # noqa: SIM115
    except OSError as error:
        raise NotFound(f"cannot open {name}: {(error.strerror or str(error)).lower()}") from None
    return Stream(raw, name, size)


class _Counted:
    """A binary file that counts what is read of it, as Arrow wants to see one."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.count = 0

    def peek(self, size: int) -> bytes:
        peeked: bytes = self._raw.peek(size)  # type: ignore[attr-defined]
        return peeked[:size]

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self.count += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self.count += count
        return count

    def seek(self, size: int) -> None:
        self._raw.seek(size, 1)
        self.count += size

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
