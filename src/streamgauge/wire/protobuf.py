"""The protobuf wire format, read carefully: every field, any order, each error with its place.

Offsets are bytes from the start of the whole message, so that an error names a place that a person can find.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from streamgauge.errors import BadInput

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

_MAX_VARINT_BYTES = 10
_UINT64 = (1 << 64) - 1


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The unsigned number at `at`, and the offset behind it."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= end:
            raise BadInput(f"protobuf: a number is cut off at byte {end}")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _UINT64, at + index + 1
    raise BadInput(f"protobuf: the number at byte {at} has more than {_MAX_VARINT_BYTES} bytes")


def encoded_varint(number: int) -> bytes:
    """A number as it stands on the wire; one that is negative as the int64 that it is."""
    number &= _UINT64
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(value: int) -> int:
    """An int64 from the number that stands for it on the wire."""
    return value - (1 << 64) if value >> 63 else value


def span(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Start and stop of a length-delimited content whose length stands at `at`."""
    size, start = varint(data, at, end)
    if size > end - start:
        raise BadInput(f"protobuf: the field at byte {at} says it has {size} bytes, but only {end - start} are left")
    return start, start + size


def field(data: bytes, at: int, stop: int) -> tuple[int, int, int, int]:
    """The field that begins at `at` < `stop`, where its message ends: (number, wire type, a, b).

    For VARINT `a` is the number itself, for the others data[a:b] is the content; the next field begins at `b`.
    """
    tag, a = varint(data, at, stop)
    number, kind = tag >> 3, tag & 7
    if number == 0:
        raise BadInput(f"protobuf: the field at byte {at} has the number 0")
    if kind == BYTES:
        a, b = span(data, a, stop)
    elif kind == VARINT:
        a, b = varint(data, a, stop)
    elif kind in (FIXED64, FIXED32):
        b = a + (8 if kind == FIXED64 else 4)
        if b > stop:
            raise BadInput(f"protobuf: a number is cut off at byte {stop}")
    else:
        raise BadInput(f"protobuf: the field at byte {at} has the unknown wire type {kind}")
    return number, kind, a, b


def fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Every `field` of the message data[start:stop]."""
    at = start
    while at < stop:
        found = field(data, at, stop)
        yield found
        at = found[3]


def expect(kind: int, wanted: int, what: str, at: int) -> None:
    """Raise BadInput unless a known field has the wire type that its definition gives it."""
    if kind != wanted:
        raise BadInput(f"protobuf: {what} near byte {at} has wire type {kind} instead of {wanted}")
