"""Thrift's compact protocol, written only, as far as Parquet's headers and footers need it.

The source is Apache Thrift's doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamgauge.model.uleb128 import uleb128

_TRUE, _FALSE, _I8, _I16, _I32, _I64, _BINARY, _LIST, _STRUCT = 1, 2, 3, 4, 5, 6, 8, 9, 12
_SHORT_LIST = 15
"""A list of fewer has its length in its first byte."""
_STOP = b"\0"


class Encoded(NamedTuple):
    """A value as it stands in a struct or a list."""

    kind: int
    content: bytes


def zigzag(number: int) -> bytes:
    """An int64."""
    return uleb128((number << 1) ^ (number >> 63))


def flag(value: bool) -> Encoded:
    """A bool, as a field of a struct."""
    return Encoded(_TRUE if value else _FALSE, b"")


def i8(number: int) -> Encoded:
    return Encoded(_I8, number.to_bytes(1, "little", signed=True))


def i16(number: int) -> Encoded:
    return Encoded(_I16, zigzag(number))


def i32(number: int) -> Encoded:
    return Encoded(_I32, zigzag(number))


def i64(number: int) -> Encoded:
    return Encoded(_I64, zigzag(number))


def binary(content: bytes) -> Encoded:
    return Encoded(_BINARY, uleb128(len(content)) + content)


def text(content: str) -> Encoded:
    return binary(content.encode())


def array(values: Sequence[Encoded]) -> Encoded:
    """A list of values of one kind, at least one."""
    kind, count = values[0].kind, len(values)
    head = bytes([count << 4 | kind]) if count < _SHORT_LIST else bytes([_SHORT_LIST << 4 | kind]) + uleb128(count)
    return Encoded(_LIST, head + b"".join(value.content for value in values))


def struct(fields: Mapping[int, Encoded | None]) -> Encoded:
    """Fields by their ids, which ascend by at most 15. Those that are None are left out."""
    parts, last = [], 0
    for field, value in fields.items():
        if value is not None:
            parts += [bytes([(field - last) << 4 | value.kind]), value.content]
            last = field
    return Encoded(_STRUCT, b"".join(parts) + _STOP)
