"""Encodings of Parquet, of whole pages. The source is Apache Parquet's Encodings.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Bools, UInt8s
from streamgauge.model.uleb128 import uleb128
from streamgauge.store.parquet.thrift import zigzag

Numbers = npt.NDArray[Any]
"""int32, int64 or float64: Parquet's physical types that we use."""
Part = bytes | UInt8s
"""Of a page. An array may have any shape and strides; its bytes stand in the order of its indices."""


class PageEncoding(IntEnum):
    """By the numbers that Parquet gives them."""

    PLAIN = 0
    RLE = 3  # of levels
    DELTA_BINARY_PACKED = 5
    BYTE_STREAM_SPLIT = 9


_BLOCK = 65_536
_BLOCK_UNIT = 128
_MINIBLOCK = 64
"""Deltas. By the standard a block has a multiple of _BLOCK_UNIT, and a miniblock a multiple of 32. Larger blocks are
refused by parquet-go, larger miniblocks by cuDF."""


def plain(values: Numbers) -> list[Part]:
    return [_bytes_of(values)]


def byte_stream_split(values: Numbers) -> list[Part]:
    """The first bytes of all values, then the second ones, and so on."""
    return [_bytes_of(values).T]


def delta_binary_packed(values: Numbers) -> list[Part]:
    """Differences of integers, each less the smallest of them, in as many bytes as the largest takes.

    The standard packs bits, in a width for each miniblock. A width of whole bytes, and one for all of a page, is a
    special case that every reader knows, and leaves in place the repetitions that a compressor looks for. Differences
    that do not fit wrap around, here and in a reader.
    """
    deltas = values[1:] - values[:-1]
    rows = len(deltas)
    block = min(max(rows + -rows % _BLOCK_UNIT, _BLOCK_UNIT), _BLOCK)
    first = int(values[0]) if len(values) else 0
    parts: list[Part] = [uleb128(block), uleb128(block // _MINIBLOCK), uleb128(len(values)), zigzag(first)]
    if rows == 0:
        return parts
    least = deltas.min()
    above = deltas - least
    width = _width(above)
    for start in range(0, rows, block):
        content = _bytes_of(above[start : start + block])[:, :width]
        miniblocks = -(-len(content) // _MINIBLOCK)
        widths = bytes([8 * width]) * miniblocks + bytes(block // _MINIBLOCK - miniblocks)
        padding = bytes((miniblocks * _MINIBLOCK - len(content)) * width)
        parts += [zigzag(int(least)), widths, content, padding]
    return parts


def _width(numbers: Numbers) -> int:
    """Bytes that the largest of some integers takes, all taken as unsigned."""
    largest = int(numbers.view(np.dtype(f"u{numbers.itemsize}")).max())
    return (largest.bit_length() + 7) // 8


def _bytes_of(numbers: Numbers) -> UInt8s:
    """[numbers; bytes of one], the lowest byte first."""
    return numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize)


ENCODERS: dict[PageEncoding, Callable[[Numbers], list[Part]]] = {
    PageEncoding.PLAIN: plain,
    PageEncoding.BYTE_STREAM_SPLIT: byte_stream_split,
    PageEncoding.DELTA_BINARY_PACKED: delta_binary_packed,
}


def definition_levels(present: Bools) -> bytes:
    """Which rows of an optional column are not null, as a data page begins with it: its size, then one run."""
    rows = len(present)
    if present.all() or not present.any():
        run = uleb128(rows << 1) + bytes([int(present.any())])
    else:
        run = uleb128(-(-rows // 8) << 1 | 1) + np.packbits(present, bitorder="little").tobytes()
    return len(run).to_bytes(4, "little") + run


def joined(parts: Sequence[Part]) -> memoryview:
    """The page. It lies in Arrow's memory, which is used again for the next: the system's would have to be mapped anew
    each time, which takes half as long as all else that a flush does with a page."""
    arrays = [np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part for part in parts if len(part)]
    content = memoryview(pa.allocate_buffer(sum(array.size for array in arrays)))
    page, end = np.frombuffer(content, np.uint8), 0
    for array in arrays:
        start, end = end, end + array.size
        page[start:end].reshape(array.shape)[...] = array
    return content
