"""Encodings of Parquet, of whole pages. The source is Apache Parquet's Encodings.md."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Bools, UInt8s
from streamgauge.store.parquet.thrift import varint, zigzag

Numbers = npt.NDArray[Any]
"""int32, int64 or float64: Parquet's physical types that we use."""


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


def plain(values: Numbers) -> bytes:
    return values.tobytes()


def byte_stream_split(values: Numbers) -> bytes:
    """The first bytes of all values, then the second ones, and so on."""
    return _bytes_of(values).T.tobytes()


def delta_binary_packed(values: Numbers) -> bytes:
    """Differences of integers, each less the smallest of them, in as many bytes as the largest takes.

    The standard packs bits, in a width for each miniblock. A width of whole bytes, and one for all of a page, is a
    special case that every reader knows, and leaves in place the repetitions that a compressor looks for. Differences
    that do not fit wrap around, here and in a reader.
    """
    deltas = values[1:] - values[:-1]
    rows = len(deltas)
    block = min(max(rows + -rows % _BLOCK_UNIT, _BLOCK_UNIT), _BLOCK)
    first = int(values[0]) if len(values) else 0
    parts = [varint(block), varint(block // _MINIBLOCK), varint(len(values)), zigzag(first)]
    if rows:
        least = deltas.min()
        packed = _packed(deltas - least)
        for start in range(0, rows, block):
            content = packed[start : start + block]
            used = len(content) // _MINIBLOCK
            widths = bytes([8 * packed.shape[1]]) * used + bytes(block // _MINIBLOCK - used)
            parts += [zigzag(int(least)), widths, content.tobytes()]
    return b"".join(parts)


def _packed(numbers: Numbers) -> UInt8s:
    """[numbers, padded to whole miniblocks; bytes that the largest takes], of numbers taken as unsigned."""
    largest = int(numbers.view(np.dtype(f"u{numbers.itemsize}")).max())
    width = (largest.bit_length() + 7) // 8
    packed = np.zeros((len(numbers) + -len(numbers) % _MINIBLOCK, width), np.uint8)
    packed[: len(numbers)] = _bytes_of(numbers)[:, :width]
    return packed


def _bytes_of(numbers: Numbers) -> UInt8s:
    """[numbers; bytes of one], the lowest byte first."""
    return numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize)


ENCODERS: dict[PageEncoding, Callable[[Numbers], bytes]] = {
    PageEncoding.PLAIN: plain,
    PageEncoding.BYTE_STREAM_SPLIT: byte_stream_split,
    PageEncoding.DELTA_BINARY_PACKED: delta_binary_packed,
}


def definition_levels(present: Bools) -> bytes:
    """Which rows of an optional column are not null, as a data page begins with it: its size, then one run."""
    rows = len(present)
    if present.all() or not present.any():
        run = varint(rows << 1) + bytes([int(present.any())])
    else:
        run = varint(-(-rows // 8) << 1 | 1) + np.packbits(present, bitorder="little").tobytes()
    return len(run).to_bytes(4, "little") + run
