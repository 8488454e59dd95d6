"""References into the symbol table of a remote-write 2.0 request: the labels of a series, as varints."""

from __future__ import annotations

import numpy as np

from streamgauge.model.arrays import Int64s
from streamgauge.wire.protobuf import BYTES, VARINT, expect, varint

_MAX_REF_BYTES = 5


def unpack(packed: list[bytes], symbols: int) -> tuple[Int64s, Int64s] | None:
    """References of many series at once, from the packed bytes of each.

    Returns all of them in one array, int64, and where those of each series begin in it, int64[series + 1]. None when a
    series has none or an odd number of them, or one is cut off or not below `symbols`.
    """
    if not all(packed):
        return None
    raw = np.frombuffer(b"".join(packed), np.uint8)
    row_ends = np.cumsum(np.fromiter(map(len, packed), np.int64, len(packed)))
    last = raw < 0x80  # the last byte of a reference
    if not len(raw) or not last[row_ends - 1].all():
        return None
    bounds = np.zeros(len(packed) + 1, np.int64)
    bounds[1:] = np.cumsum(last)[row_ends - 1]
    stops = np.flatnonzero(last) + 1
    starts = np.concatenate((np.zeros(1, np.int64), stops[:-1]))
    widths = stops - starts
    widest = int(widths.max())
    refs = raw[starts].astype(np.int64) & 0x7F
    if widest > _MAX_REF_BYTES or (bounds & 1).any():
        return None
    for index in range(1, widest):
        longer = np.flatnonzero(widths > index)
        refs[longer] |= (raw[starts[longer] + index].astype(np.int64) & 0x7F) << (7 * index)
    return None if int(refs.max()) >= symbols else (refs, bounds)


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
