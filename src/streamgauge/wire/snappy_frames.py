"""Snappy's framing format: a stream of chunks, each with a checksum of its own.

    chunk   type 1 byte, size 3 bytes (little-endian, of what follows), content
    FF      stream identifier, "sNaPpY": the first chunk of a stream, and allowed again in it
    00      masked CRC-32C of the content (4 bytes), then the content as a block of snappy
    01      masked CRC-32C, then the content as it is
    02..7F  reserved; a reader that does not know them cannot read the stream
    80..FE  padding, and reserved chunks that a reader skips

A chunk of content has at most 65,536 bytes, decompressed. An empty stream has no chunk at all.
Format: `framing_format.txt` of Google's snappy library.
"""

from __future__ import annotations

from collections.abc import Iterator

from streamgauge.errors import BadInput, TooLarge
from streamgauge.wire import snappy
from streamgauge.wire.crc32c import crc32c

IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"
CHUNK_BYTES = 65_536
"""Of content in one chunk."""

_COMPRESSED = 0x00
_PLAIN = 0x01
_FIRST_SKIPPED = 0x80
_STREAM = 0xFF
_HEAD_BYTES = 4
_SUM_BYTES = 4
_MASK = 0xA282EAD8


def encode(content: bytes) -> bytes:
    """`content` as a stream. Of chunks that compression does not make smaller by an eighth the content stays as it is,
    as in the reference implementations."""
    chunks = [IDENTIFIER]
    for start in range(0, len(content), CHUNK_BYTES):
        plain = content[start : start + CHUNK_BYTES]
        block = snappy.compress(plain)
        kind, stored = (_COMPRESSED, block) if len(block) < len(plain) - len(plain) // 8 else (_PLAIN, plain)
        head = bytes((kind,)) + (len(stored) + _SUM_BYTES).to_bytes(3, "little")
        chunks += (head, _checksum(plain).to_bytes(_SUM_BYTES, "little"), stored)
    return b"".join(chunks)


def encoded_limit(size: int) -> int:
    """The bytes of a stream that a usual writer makes of `size` bytes, at most: with each chunk full but the last."""
    return len(IDENTIFIER) + size + (_HEAD_BYTES + _SUM_BYTES) * -(-size // CHUNK_BYTES)


def decode(stream: bytes, limit: int) -> bytes:
    """The content of a stream, of `limit` bytes at most; as `pieces`."""
    content = list(pieces(stream, limit))
    return content[0] if len(content) == 1 else b"".join(content)


def pieces(stream: bytes, limit: int) -> Iterator[bytes]:
    """The content of each chunk, checked, so that a caller can let others have their turn between two of them.

    No chunk is decompressed before the size that it announces has passed the checks, so what is handed over never
    exceeds `limit` bytes all together. Raises TooLarge where it would, and BadInput where the stream is damaged, cut
    off, or none; what was handed over before is then not to be used.
    """
    if stream and not stream.startswith(IDENTIFIER):
        raise BadInput("snappy: the stream does not begin with the identifier of the framing format")
    at, size = 0, 0
    while at < len(stream):
        kind, start, stop = _chunk(stream, at)
        if kind in (_COMPRESSED, _PLAIN):
            if stop - start < _SUM_BYTES:
                raise BadInput(f"snappy: the chunk at byte {at} has no checksum")
            stored = stream[start + _SUM_BYTES : stop]
            length = snappy.decompressed_length(stored) if kind == _COMPRESSED else len(stored)
            if length > CHUNK_BYTES:
                raise BadInput(f"snappy: the chunk at byte {at} holds {length} bytes; the format allows {CHUNK_BYTES}")
            size += length
            if size > limit:
                raise TooLarge(f"snappy: the body decompresses to more than {limit} bytes, which is the limit")
            content = snappy.inflate(stored, length) if kind == _COMPRESSED else stored
            if _checksum(content) != int.from_bytes(stream[start : start + _SUM_BYTES], "little"):
                raise BadInput(f"snappy: the checksum of the chunk at byte {at} does not match its content")
            yield content
        elif kind == _STREAM:
            if stream[at:stop] != IDENTIFIER:
                raise BadInput(f"snappy: the chunk at byte {at} is no stream identifier")
        elif kind < _FIRST_SKIPPED:
            raise BadInput(f"snappy: the chunk at byte {at} has the reserved type {kind:#04x}")
        at = stop


def _chunk(stream: bytes, at: int) -> tuple[int, int, int]:
    """Type, start and stop of the content of the chunk that begins at `at`."""
    start = at + _HEAD_BYTES
    if start > len(stream):
        raise BadInput(f"snappy: the stream is cut off in the chunk at byte {at}")
    stop = start + int.from_bytes(stream[at + 1 : start], "little")
    if stop > len(stream):
        raise BadInput(f"snappy: the stream is cut off in the chunk at byte {at}")
    return stream[at], start, stop


def _checksum(content: bytes) -> int:
    """The masked CRC-32C, which the format has in place of a plain one: sums of what holds sums are weak."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
