"""The body of a request that is as long as its sender likes, inflated as it comes, in pieces that cost little each."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

import pyarrow as pa

from streamgauge.errors import BadInput, TooLarge, UnsupportedMedia
from streamgauge.ingest.admission import Held

PIECE = 128 << 10
"""Bytes of a piece, at most: half a millisecond of work for what reads it."""
MAX_WINDOW = 8 << 20
"""Bytes of memory that a zstd frame may ask for to be read (RFC 9659: what HTTP's senders may rely on)."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte from 0x50 to 0x5f
_REPEATED_BYTE = 2  # a type of block, which takes a byte
_BLOCKS = 4096
"""Blocks that are looked at before others get their turn: a millisecond."""
_SHOWN = 100  # characters of a content coding in a message


async def pieces(
    headers: Mapping[str, str], body: AsyncIterator[bytes], compressed_limit: int, held: Held
) -> AsyncGenerator[bytes, None]:
    """The body without its content coding.

    compressed_limit: bytes of a body in zstd, which is held as a whole and accounted; others flow through. Raises
    UnsupportedMedia, TooLarge, Overloaded, BadInput for what is damaged or cut off, and what `body` raises.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        inflated = body
    elif coding in ("gzip", "x-gzip"):
        inflated = _gunzip(body)
    elif coding == "zstd":
        inflated = _unzstd(body, compressed_limit, held)
    else:
        raise UnsupportedMedia(f'content encoding "{coding[:_SHOWN]}" is not spoken here; send gzip, zstd or none')
    async for chunk in inflated:
        for at in range(0, len(chunk) or 1, PIECE):
            yield chunk[at : at + PIECE]


async def _gunzip(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """All members of a gzip stream. Each gives a piece, so that thousands of empty ones hold nobody up."""
    member = None
    async for chunk in body:
        while chunk:
            member = member or zlib.decompressobj(wbits=31)
            try:
                piece = member.decompress(chunk, PIECE)
            except zlib.error as error:
                raise BadInput(f"the body is no gzip: {error}") from None
            yield piece
            chunk = member.unused_data if member.eof else member.unconsumed_tail
            member = None if member.eof else member
    if member is not None:
        raise BadInput("the compressed body is cut off")


async def _unzstd(body: AsyncIterator[bytes], limit: int, held: Held) -> AsyncIterator[bytes]:
    """All frames of a zstd stream. Arrow's reader wants it whole."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"a body in zstd has {limit} bytes at most; send it in several, or in gzip")
        held.add(len(chunk))
        chunks.append(chunk)
    data = b"".join(chunks)
    for window in _windows(data):
        if window > MAX_WINDOW:
            raise BadInput(f"the body's zstd window is larger than {MAX_WINDOW} bytes")
        yield b""  # so that millions of blocks hold nobody up
    held.add(MAX_WINDOW)
    stream = pa.CompressedInputStream(pa.BufferReader(data), "zstd")
    while piece := _read(stream):
        yield piece


def _read(stream: pa.CompressedInputStream) -> bytes:
    try:
        return stream.read(PIECE)
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        raise BadInput(
            "the compressed body is cut off" if "runcated" in text else f"the body is no zstd: {text}"
        ) from None


def _windows(data: bytes) -> Iterator[int]:
    """Bytes that reading each zstd frame may take (RFC 8878, 3.1.1), and 0 now and then between its blocks. Ends where
    the data is damaged: whoever reads it says so."""
    at = 0
    while len(data) - at >= 8:
        if data[at + 1 : at + 4] == _SKIPPABLE and data[at] & 0xF0 == 0x50:
            yield 0
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if data[at : at + 4] != _ZSTD_MAGIC:
            return
        checksum = data[at + 4] & 4
        window, at = _frame_header(data, at + 4)
        yield window
        blocks, last = 0, False
        while not last:
            header = int.from_bytes(data[at : at + 3], "little")
            last = bool(header & 1) or at >= len(data)
            at += 3 + (1 if header & 6 == _REPEATED_BYTE else header >> 3)
            blocks += 1
            if blocks % _BLOCKS == 0:
                yield 0
        at += checksum


def _frame_header(data: bytes, at: int) -> tuple[int, int]:
    """The window that a frame asks for, and where its first block begins. `at`: behind the magic number."""
    descriptor = data[at]
    single = descriptor & 0x20
    size_at = at + 1 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if not single:
        base = 1 << (10 + (data[at + 1] >> 3))
        return base + base // 8 * (data[at + 1] & 7), size_at + size_bytes
    content = int.from_bytes(data[size_at : size_at + size_bytes], "little")
    return content + 256 * (size_bytes == 2), size_at + size_bytes
