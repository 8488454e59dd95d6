"""The bytes of a log segment, as docs/format/log.md lays them down: pure functions, no disk.

segment = header, frame*        frame = frame header, payload, zeros up to a multiple of 8 bytes
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streamgauge.errors import Corrupt, FormatTooNew
from streamgauge.store.ports import Record

MAGIC = b"\x89SGLOG\r\n"
FORMAT_VERSION = 1

_HEADER = struct.Struct("<8sII16sQQQQI")  # without the checksum, which is over all of it
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size

_FRAME = struct.Struct("<IIQHHI")  # crc, payload bytes, commit, kind, place, mark
_FIRST, _FOLLOWING = 0, 1  # places in an append
FRAME_BYTES = _FRAME.size
_ALIGNMENT = 8

MAX_PAYLOAD_BYTES = (1 << 32) - 1
_RESYNC_EFFORT = 4
"""How many times the segment's bytes may be checksummed in vain while looking for good frames."""
_FIRST_WINDOW = 1 << 16  # bytes looked through at first for the next good frame; a multiple of 8


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself and of the one that was written before it.

    A segment is closed without a word in itself: how much of it counts is in the header of the next. So an append
    that failed is void even when its bytes could not be cut off.
    """

    store_id: bytes  # 16
    sequence: int  # the number in the name
    mark: int  # random, uint32, in each frame of the segment, so that nothing else can pass for one
    previous: int  # sequence of the segment before; 0: there was none
    previous_mark: int
    previous_bytes: int  # how many bytes of that one count
    previous_commit: int  # the last commit in it or in any before it; 0: none

    def encode(self) -> bytes:
        head = _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            self.mark,
            self.store_id,
            self.sequence,
            self.previous,
            self.previous_bytes,
            self.previous_commit,
            self.previous_mark,
        )
        return head + _CRC.pack(zlib.crc32(head))


def decode_header(data: memoryview) -> Header:
    """Raises Corrupt, and FormatTooNew for a whole header of a later format."""
    if len(data) < HEADER_BYTES:
        raise Corrupt("the header is not whole")
    head = data[: _HEADER.size]
    magic, version, mark, store_id, sequence, previous, previous_bytes, previous_commit, previous_mark = _HEADER.unpack(
        head
    )
    if magic != MAGIC:
        raise Corrupt("the header does not start as that of a log segment")
    if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(head):
        raise Corrupt("the header's checksum is wrong")
    if version > FORMAT_VERSION:
        raise FormatTooNew(
            f"the log is of format {version} and this streamgauge knows formats up to {FORMAT_VERSION}; "
            "start the newer one. Nothing was changed"
        )
    return Header(store_id, sequence, mark, previous, previous_mark, previous_bytes, previous_commit)


def frame_bytes(payload: int) -> int:
    """Bytes that a record with a payload of that many bytes takes in a segment."""
    return FRAME_BYTES + payload + -payload % _ALIGNMENT


def encode_frame(record: Record, mark: int, *, begins: bool = True) -> list[bytes | memoryview]:
    """The pieces of a record's frame, to be written one after the other. The payload is not copied.

    begins: whether it is the first of its append."""
    size = len(record.payload)
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record of {size} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    head = _FRAME.pack(0, size, record.commit, record.kind, _FIRST if begins else _FOLLOWING, mark)
    crc = zlib.crc32(record.payload, zlib.crc32(head[_CRC.size :]))
    return [_CRC.pack(crc) + head[_CRC.size :], record.payload, bytes(-size % _ALIGNMENT)]


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes `start` to `end` of a segment hold no readable record; `last`: none follows either."""

    start: int
    end: int
    last: bool


class Frame(NamedTuple):
    """A record as it was found in a segment."""

    end: int  # offset of the byte after it
    record: Record  # its payload is a view
    begins: bool  # an append


class Frames:
    """Reads the frames of one segment. `end` bytes count; `mark` is None where the header could not be read."""

    def __init__(self, data: memoryview, mark: int | None, end: int) -> None:
        self._data = data
        self._mark = mark
        self._end = min(end, len(data))
        self._effort = _RESYNC_EFFORT * self._end + (1 << 20)  # bytes that a search may still checksum

    def __iter__(self) -> Iterator[Frame | Gap]:
        """The records and each gap between them."""
        offset = HEADER_BYTES
        while offset < self._end:
            frame = self._read(offset)
            if frame is None:
                found = self._find(offset + _ALIGNMENT)
                yield Gap(offset, self._end if found is None else found, found is None)
                if found is None:
                    return
                offset = found
                continue
            offset = frame.end
            yield frame

    def _read(self, offset: int) -> Frame | None:
        start = offset + FRAME_BYTES
        if start > self._end:
            return None
        crc, size, commit, kind, place, mark = _FRAME.unpack_from(self._data, offset)
        if offset + frame_bytes(size) > self._end or (mark != self._mark and self._mark is not None):
            return None
        if self._effort < 0 or zlib.crc32(self._data[offset + _CRC.size : start + size]) != crc:
            self._effort -= size + FRAME_BYTES
            return None
        self._mark = mark  # where the header is lost, the first good frame tells
        record = Record(commit, kind, self._data[start : start + size])
        return Frame(offset + frame_bytes(size), record, place == _FIRST)

    def _find(self, offset: int) -> int | None:
        """The offset of the next good frame at or after `offset`, or None.

        Linear in the distance to it, and never more than `_RESYNC_EFFORT` times the segment: only what looks like the
        head of a frame is checksummed.
        """
        window = _FIRST_WINDOW
        while offset + FRAME_BYTES <= self._end and self._effort >= 0:
            for candidate in self._candidates(offset, min(offset + window, self._end)):
                if self._read(candidate) is not None:
                    return candidate
            offset += window
            window *= 2
        return None

    def _candidates(self, start: int, end: int) -> list[int]:
        """Offsets in start <= offset < end at which a frame header could stand, by its fields alone."""
        reach = min(end + FRAME_BYTES - _ALIGNMENT, self._end)  # a header may begin before `end` and go on behind it
        words = np.frombuffer(self._data[start : start + (reach - start) // 8 * 8], "<u4")
        marks = words[5::2]
        count = len(marks)
        sizes = words[1::2][:count]
        plausible = sizes <= self._end - start - FRAME_BYTES - _ALIGNMENT * np.arange(count)
        if self._mark is not None:
            plausible &= marks == self._mark
        else:  # without the mark only fields that are mostly zeros tell a header from samples
            kinds, places = words[4::2][:count] & 0xFFFF, words[4::2][:count] >> 16
            plausible &= (marks != 0) & (kinds < 256) & (places <= _FOLLOWING) & (words[3::2][:count] < 1 << 16)
        return (start + _ALIGNMENT * np.flatnonzero(plausible)).tolist()
