"""Inflating a gzip body, at a cost that its size bounds."""

from __future__ import annotations

import zlib

from streamgauge.errors import BodyTooLarge, FetchFailed

MAX_MEMBERS = 1000
"""Of one body. Tools that compress in parallel write one for each 64 KiB or more; each costs 10 µs, even if empty."""
_SLICE = 65_536  # bytes given at a time: what follows the end of a member is copied, and this bounds how much


def gunzip(data: bytes, limit: int) -> bytes:
    """All members of a gzip stream. limit: bytes, inflated. Raises FetchFailed."""
    parts: list[bytes] = []
    room = limit
    members = 0
    inflate = None
    for at in range(0, len(data), _SLICE):
        piece = data[at : at + _SLICE]
        while piece:
            if inflate is None:
                members += 1
                if members > MAX_MEMBERS:
                    raise FetchFailed(f"the compressed body has more than {MAX_MEMBERS} gzip members")
                inflate = zlib.decompressobj(wbits=31)
            try:
                part = inflate.decompress(piece, room + 1)
            except zlib.error as error:
                raise FetchFailed(f"the body is no gzip: {error}") from None
            room -= len(part)
            if room < 0:
                raise body_too_large(limit)
            parts.append(part)
            piece = inflate.unused_data
            if inflate.eof:
                inflate = None
    if inflate is not None or not parts:
        raise FetchFailed("the compressed body is cut off")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def body_too_large(limit: int) -> BodyTooLarge:
    """limit: bytes, inflated."""
    return BodyTooLarge(f"the body is larger than {limit} bytes, which is the limit")
