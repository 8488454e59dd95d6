"""The body of a request that is as long as its sender likes, inflated as it comes, in pieces that cost little each."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import pyarrow as pa

from streamgauge.errors import BadInput, TooLarge, UnsupportedMedia
from streamgauge.ingest.admission import Held

PIECE = 128 << 10
"""Bytes of a piece, at most: half a millisecond of work for what reads it."""
MAX_WINDOW = 8 << 20
"""Bytes of memory that a zstd frame may ask for to be read (RFC 9659: what HTTP's senders may rely on)."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
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
    if _window(data) > MAX_WINDOW:
        raise BadInput(f"the body's zstd window is larger than {MAX_WINDOW} bytes")
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


def _window(frame: bytes) -> int:
    """Bytes that reading a zstd frame may take (RFC 8878, 3.1.1.1.2); 0 where that says itself by its content."""
    if not frame.startswith(_ZSTD_MAGIC) or len(frame) < 6 or frame[4] & 0x20:
        return 0
    base = 1 << (10 + (frame[5] >> 3))
    return base + base // 8 * (frame[5] & 7)
