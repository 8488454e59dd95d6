"""The file of a batch that waits to be pushed.

    SGFB        4 bytes
    version     uint8, 1
    part        uint8, of a scrape: bit 0, another part comes before it; bit 1, another part comes after it
    zeros       2 bytes
    checksum    uint32, zlib.crc32 of all that follows, begun with `part` in place of 0
    newest      int64, the time of the newest sample in ms
    metrics     uint32
    size        uint32, bytes of the content
    content     zlib-compressed: delimited protobuf, as it is pushed, without the labels that the server gives

Numbers are little-endian. A file is written under another name, synced and renamed, so that what has a batch's name is
whole; the checksum finds what a disk has done to it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from streamgauge.errors import BadInput, Corrupt, FormatTooNew
from streamgauge.federate.batch import Batch
from streamgauge.wire.metric_family_protobuf import decode_now, encode
from streamgauge.wire.push_part import part

MAGIC = b"SGFB"
VERSION = 1
MAX_CONTENT_BYTES = 1 << 30
"""A scrape is bounded by --limit-bytes, which nobody sets as high; a damaged file may say anything."""

_HEAD = struct.Struct("<4sBB2xI")
_ABOUT = struct.Struct("<qII")
HEAD_BYTES = _HEAD.size + _ABOUT.size
_LEVEL = 1  # of compression: the higher ones save little of so small a text


@dataclass(frozen=True, slots=True)
class About:
    """What a file says of its batch. size: bytes, as it is pushed."""

    newest: int
    metrics: int
    size: int


def about(batch: Batch, content: bytes) -> About:
    return About(batch.newest, batch.metrics, len(content))


def write_batch(batch: Batch) -> tuple[About, bytes]:
    """What is in the file of a batch."""
    content = encode(batch.families)
    known = about(batch, content)
    rest = _ABOUT.pack(known.newest, known.metrics, known.size) + zlib.compress(content, _LEVEL)
    flags = batch.part.follows | batch.part.precedes << 1
    return known, _HEAD.pack(MAGIC, VERSION, flags, zlib.crc32(rest, flags)) + rest


def read_about(data: bytes) -> About:
    """From the first HEAD_BYTES of a file; whether the rest fits is not looked at. Raises Corrupt, FormatTooNew."""
    if len(data) < HEAD_BYTES or data[:4] != MAGIC or not data[4]:
        raise Corrupt("it does not begin as a batch does")
    if data[4] > VERSION:
        raise FormatTooNew(f"its version is {data[4]}, and {VERSION} is the newest that is known here")
    return About(*_ABOUT.unpack_from(data, _HEAD.size))


def read_batch(data: bytes) -> Batch:
    """Raises Corrupt, FormatTooNew."""
    known = read_about(data)
    _, _, flags, checksum = _HEAD.unpack_from(data)
    if zlib.crc32(data[_HEAD.size :], flags) != checksum:
        raise Corrupt("its checksum is wrong")
    if known.size > MAX_CONTENT_BYTES:
        raise Corrupt(f"it says that it has {known.size} bytes")
    try:
        content = zlib.decompressobj().decompress(data[HEAD_BYTES:], known.size + 1)
        if len(content) != known.size:
            raise Corrupt("its content has another size than it says")
        return Batch(tuple(decode_now(content)), part(bool(flags & 1), bool(flags & 2)))
    except (zlib.error, BadInput) as error:
        raise Corrupt(f"its content cannot be read: {error}") from None
