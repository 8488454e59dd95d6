"""What is remembered of each cluster's last upload: a push repeats the series of the one before, in the same order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Int64s, UInt32s
from streamgauge.wire.push_records import Numbers, Records, digest, matching, read_again

LEFT_OUT = 0xFFFF_FFFF
"""In place of a series id: the whitelist leaves it out. No store gives so many."""

DEFAULT_LIMIT = 128 << 20
"""Bytes. A layout has 26 for each series, so 5,000,000 series pushed by protobuf never leave it; one that is not in it
costs twenty times as much to read."""

_OVERHEAD = 1200
"""Bytes of a layout beside its columns: arrays, digest, key and entry (measured)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """size: bytes of the push. digest: of all that is no value or timestamp. ends: of metrics, ids: of their series or
    LEFT_OUT, first: of a family; in their order. stored: whether any is left out. series: ids that are stored,
    ascending, each once. hashes, hashed: hash of each metric's bytes, ascending, and its id."""

    size: int
    digest: int
    ends: UInt32s
    ids: UInt32s
    first: Bools
    stored: Bools | None
    series: UInt32s
    hashes: Int64s
    hashed: UInt32s

    @property
    def nbytes(self) -> int:
        columns = (self.ends, self.ids, self.first, self.series, self.hashes, self.hashed)
        return _OVERHEAD + sum(column.nbytes for column in columns)

    def read(self, body: bytes) -> Numbers | None:
        """What a push says that has the same series in the same order; None where it has not."""
        if len(body) != self.size:
            return None
        ends = self.ends.astype(np.int64)
        return read_again(body, ends) if digest(body, ends) == self.digest else None

    def ids_of(self, records: Records) -> Int64s:
        """The id of each metric; -1 where it is not known."""
        return matching(self.hashes, self.hashed, records.hashes)


def layout_of(body: bytes, records: Records, ids: UInt32s) -> Layout:
    """The layout of a push that keeps to all rules."""
    ids.setflags(write=False)  # it comes again with each push, so others may remember it
    stored = ids != LEFT_OUT
    order = np.argsort(records.hashes)
    return Layout(
        len(body),
        digest(body, records.ends),
        records.ends.astype(np.uint32),
        ids,
        records.first,
        None if stored.all() else stored,
        np.unique(ids[stored]),
        records.hashes[order],
        ids[order],
    )


class Layouts:
    """The layouts of all clusters, those used longest ago leaving first. Of one policy, and one generation of the sink.

    Each is found by all labels that its cluster's series must have, and so used for nobody else's.
    """

    def __init__(self, generation: int, limit: int = DEFAULT_LIMIT) -> None:
        self.generation = generation
        self.nbytes = 0
        self._limit = limit
        self._layouts: OrderedDict[Hashable, Layout] = OrderedDict()

    def __len__(self) -> int:
        return len(self._layouts)

    def renew(self, generation: int) -> None:
        """Forget all that is of another generation."""
        if generation != self.generation:
            self._layouts.clear()
            self.generation, self.nbytes = generation, 0

    def find(self, owner: Hashable) -> Layout | None:
        layout = self._layouts.get(owner)
        if layout is not None:
            self._layouts.move_to_end(owner)
        return layout

    def put(self, owner: Hashable, layout: Layout) -> None:
        self.forget(owner)
        self._layouts[owner] = layout
        self.nbytes += layout.nbytes
        while self.nbytes > self._limit and self._layouts:
            _, oldest = self._layouts.popitem(last=False)
            self.nbytes -= oldest.nbytes

    def forget(self, owner: Hashable) -> None:
        if (layout := self._layouts.pop(owner, None)) is not None:
            self.nbytes -= layout.nbytes
