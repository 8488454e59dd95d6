"""Numbers in as many bytes as they need, as protobuf, snappy and thrift write them."""

from __future__ import annotations


def uleb128(number: int) -> bytes:
    """An integer that is not negative: seven bits a byte, the lowest first, and a bit that says whether more follow."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
