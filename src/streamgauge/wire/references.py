"""References into the symbol table of a remote-write 2.0 request: the labels of a series, as varints."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamgauge.model.arrays import Int64s
from streamgauge.wire.protobuf import BYTES, VARINT, expect, varint

_WIDEST = 1024
"""Bytes of one series' references that are unpacked together with those of others: 170 labels of three bytes each."""
_TWO_BYTES = 1 << 14
_THREE_BYTES = 1 << 21

Unsigned = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def unpack(data: bytes, begins: Int64s, sizes: Int64s, symbols: int) -> tuple[Unsigned, Int64s] | None:
    """References of many series at once: those of each are packed in the `sizes` bytes of `data` from `begins` on.

    Returns all of them in one array, and how many each series has, int64[series]. None when a series has none or an odd
    number of them, or one is cut off, not below `symbols`, or in more bytes than that takes.
    """
    widest = int(sizes.max())
    if not 0 < widest <= _WIDEST or int(sizes.min()) == 0 or symbols > _THREE_BYTES:
        return None
    rows = _rows(data, begins, widest)
    inside = np.arange(widest) < sizes[:, None]
    rows = np.where(inside, rows, np.uint8(0)).reshape(-1)
    continued = rows >= 0x80
    last = inside.reshape(-1) & ~continued
    if not last.reshape(inside.shape)[np.arange(len(sizes)), sizes - 1].all():
        return None
    counts: Int64s = last.reshape(inside.shape).view(np.uint8).sum(axis=1, dtype=np.int64)
    numbers = _numbers(rows, continued, np.uint16 if symbols <= _TWO_BYTES else np.uint32)
    if numbers is None or (counts & 1).any():
        return None
    refs = numbers[last]
    return None if int(refs.max()) >= symbols else (refs, counts)


def _rows(data: bytes, begins: Int64s, width: int) -> npt.NDArray[np.uint8]:
    """`width` bytes of `data` from each of `begins` on, and zeros behind its end: uint8[series, width]."""
    missing = int(begins.max()) + width - len(data)
    if missing > 0:
        data += bytes(missing)
    windows: np.ndarray[tuple[int], np.dtype[np.void]] = np.ndarray(
        (len(data) - width + 1,), np.dtype((np.void, width)), data, 0, (1,)
    )
    return windows[begins].view(np.uint8).reshape(len(begins), width)


def _numbers(rows: npt.NDArray[np.uint8], continued: npt.NDArray[np.bool_], kind: type) -> Unsigned | None:
    """The number that ends at each byte. None when one has too many bytes for `kind`: two, or three of uint32."""
    digits: Unsigned = (rows & np.uint8(0x7F)).astype(kind)
    numbers = digits.copy()
    pairs = digits[1:] << kind(7)
    pairs |= digits[:-1]
    np.copyto(numbers[1:], pairs, where=continued[:-1])
    threes = np.flatnonzero(continued[1:-1] & continued[:-2]) + 2
    if not len(threes):
        return numbers
    if kind is np.uint16 or (continued[threes[threes >= 3] - 3]).any():
        return None
    numbers[threes] = digits[threes] << kind(14) | digits[threes - 1] << kind(7) | digits[threes - 2]
    return numbers


def references(data: bytes, kind: int, a: int, b: int, limit: int) -> list[int]:
    """At most `limit` references of a labels_refs field, packed or single."""
    if kind == VARINT:
        return [a][:limit]
    expect(kind, BYTES, "references to labels", a)
    refs: list[int] = []
    while a < b and len(refs) < limit:
        ref, a = varint(data, a, b)
        refs.append(ref)
    return refs
