"""Snappy's block format: a varint with the decompressed length, then the compressed elements.

Format: the description of the block format that comes with Google's snappy library.
"""

from __future__ import annotations

import pyarrow as pa

from streamgauge.errors import BadInput, TooLarge

_CODEC = pa.Codec("snappy")
_MAX_PREAMBLE_BYTES = 5  # the length is an unsigned 32-bit number


def decompressed_length(block: bytes) -> int:
    """The length in bytes that the block says it has when decompressed. Raises BadInput when it says none."""
    length = 0
    for at, byte in enumerate(block[:_MAX_PREAMBLE_BYTES]):
        length |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            if length > 0xFFFFFFFF:
                break
            return length
    raise BadInput("snappy: the block does not begin with its decompressed length")


def decompress(block: bytes, limit: int) -> bytes:
    """The block's content.

    Nothing is allocated before the announced length has passed the check against `limit` (bytes).
    Raises TooLarge when it is over, BadInput when the block is damaged or cut short.
    """
    length = decompressed_length(block)
    if length > limit:
        raise TooLarge(f"snappy: the body decompresses to {length} bytes; the limit is {limit}")
    return inflate(block, length)


def inflate(block: bytes, length: int) -> bytes:
    """The content of a block that says it has so many bytes, which are allocated. Raises BadInput as `decompress`."""
    try:
        content: bytes = _CODEC.decompress(block, decompressed_size=length, asbytes=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"snappy: the body is damaged or cut short ({error})") from None
    return content


def compress(content: bytes) -> bytes:
    """`content` as one block."""
    block: bytes = _CODEC.compress(content, asbytes=True)
    return block
