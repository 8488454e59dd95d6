"""A stream, or a folder, cut into blocks of whole lines or whole requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamgauge.commands.importer.stream import Stream
from streamgauge.errors import BadInput
from streamgauge.model.arrays import UInt8s
from streamgauge.wire.protobuf import encoded_varint
from streamgauge.wire.write_bodies import MAX_BODY_BYTES, MAX_LENGTH_BYTES, length_at

BLOCK_BYTES = 2 << 20
"""Read and parsed at once: as much as stays, with what is made of it, in a processor's caches."""
REQUESTS_BYTES = 1 << 20
"""The same of remote-write requests, which decompress to ten times as much."""
MAX_LINE_BYTES = 64 << 20
"""One JSON line holds all samples of a series, unless its exporter was told otherwise: these are three million, and
take half a gigabyte while they are read."""
_LOOK_BACK = 4096  # bytes, in which most often a line ends
_NEWLINE = 10


@dataclass(frozen=True, slots=True)
class Position:
    """Between two blocks. offset: bytes, decompressed, or files of a folder. places: lines, or requests, before it."""

    offset: int = 0
    places: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """end: the offset behind it, as a position's."""

    data: bytes | memoryview
    end: int


def line_blocks(stream: Stream, start: int) -> Iterator[Block]:
    """Whole lines. The last one is given the line feed that it may lack. Raises BadInput."""
    stream.skip(start)
    at = start
    rest = np.empty(0, np.uint8)  # of a line whose end has not been read
    while True:
        kept = len(rest)
        more = max(BLOCK_BYTES, min(kept, MAX_LINE_BYTES - kept))  # doubled: a long line is not copied often
        data = np.empty(kept + more, np.uint8)
        data[:kept] = rest
        count = stream.readinto(data.data[kept:])
        if not count:
            break
        data = data[: kept + count]
        end = _end_of_lines(data)
        rest = data[end:]
        if end:
            at += end
            yield Block(data.data[:end], at)
        if len(rest) > MAX_LINE_BYTES:
            raise BadInput(f"{stream.name}: a line has more than {MAX_LINE_BYTES} bytes; export fewer samples a line")
    if kept:
        data[kept] = _NEWLINE
        yield Block(data.data[: kept + 1], at + kept)


def _end_of_lines(data: UInt8s) -> int:
    """Where the last whole line ends; 0 where there is none."""
    found = data[-_LOOK_BACK:].tobytes().rfind(b"\n")
    if found >= 0:
        return max(len(data) - _LOOK_BACK, 0) + found + 1
    ends = np.flatnonzero(data == _NEWLINE)
    return int(ends[-1]) + 1 if len(ends) else 0


def request_blocks(stream: Stream, start: int) -> Iterator[Block]:
    """Whole requests, each behind its length. Raises BadInput where no request begins or the last one is cut off."""
    stream.skip(start)
    at = start
    held: list[bytes] = []
    size = 0
    try:
        while head := stream.peek(MAX_LENGTH_BYTES):
            piece = _request(stream, head, at + size)
            held.append(piece)
            size += len(piece)
            if size >= REQUESTS_BYTES:
                at += size
                yield Block(b"".join(held), at)
                held, size = [], 0
    except BadInput:
        if held:
            yield Block(b"".join(held), at + size)
        raise
    if held:
        yield Block(b"".join(held), at + size)


def folder_blocks(folder: Path, start: int) -> Iterator[Block]:
    """The files of a folder in order of their names, each the body of one request. Raises BadInput."""
    held: list[bytes] = []
    size = 0
    files = files_of(folder)
    for number, path in enumerate(files[start:], start + 1):
        body = _body(path)
        held += (encoded_varint(len(body)), body)
        size += len(body)
        if size >= REQUESTS_BYTES or number == len(files):
            yield Block(b"".join(held), number)
            held, size = [], 0


def files_of(folder: Path) -> list[Path]:
    """What counts as a request in a folder. Hidden files do not."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _request(stream: Stream, head: bytes, at: int) -> bytes:
    """The next request with its length, which `head` begins with."""
    try:
        found = length_at(head, 0)
    except BadInput as error:
        raise BadInput(f"{stream.name}: byte {at}: {error.message}") from None
    if found is not None:
        length, start = found
        piece = _exactly(stream, start + length)
        if len(piece) == start + length:
            return piece
    raise BadInput(f"{stream.name}: the request that begins at byte {at} is cut off")


def _body(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BODY_BYTES:
            raise BadInput(f"{path} is larger than {MAX_BODY_BYTES} bytes, so it is no request")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def _exactly(stream: Stream, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
