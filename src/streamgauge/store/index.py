"""The series index: which key has which id, and the label columns that queries read.

Every series that has data is in it, once. The server resolves keys here; query workers see only the columns, through
an `IndexSnapshot`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import cast

import numpy as np

from streamgauge.errors import IndexFull
from streamgauge.model.arrays import Bools, Int64s, UInt32s
from streamgauge.model.labels import NAME
from streamgauge.model.series_limits import SeriesLimits
from streamgauge.store import arrow
from streamgauge.store.columns import IndexSnapshot, LabelColumns
from streamgauge.store.id_set import IdSet
from streamgauge.store.leases import Leases
from streamgauge.store.shm import SharedMemory

DEFAULT_BUDGET = 1 << 30
MAX_ID = (1 << 32) - 1

MAX_LABEL_BYTES = 1 << 30
"""Bytes of the distinct values of one label, and of all names: a reader has them as one Arrow array, which ends at
2 GiB. The budget is reached before, unless somebody has raised it."""

_SHARDS = 128
"""A dictionary of a million keys stands still for 50 ms and more when it grows; 128 of them for below 1 ms each."""
_SERIES_OVERHEAD = 200
"""Bytes that a series takes in the server beside its key: object headers, an entry in a dictionary, its id."""
_TEXT_OVERHEAD = 150
"""The same for a text of a dictionary."""
_REBUILD_ROWS = 512
"""Rows moved at a time, in about 2 ms."""
_PRUNED_AT_ONCE = 1024
"""Series forgotten at a time, in about 5 ms."""


class SeriesIndex:
    """The writing side. Everything is called on the event loop's thread.

    memory: where the columns live. leases: what queries read. next_id: no id below it is given to a new series.
    budget: bytes that the index may take, shared memory and an estimate of the server's own counted. label_bytes: those
    of one label's distinct values. limits: of numbers of series; they may be replaced at any time. None of these bounds
    what is restored.
    """

    def __init__(
        self,
        memory: SharedMemory,
        leases: Leases,
        *,
        next_id: int = 0,
        budget: int = DEFAULT_BUDGET,
        label_bytes: int = MAX_LABEL_BYTES,
        limits: SeriesLimits | None = None,
    ) -> None:
        self.limits = limits or SeriesLimits()
        self._memory = memory
        self._leases = leases
        self._budget = budget
        self._label_bytes = label_bytes
        self._next_id = next_id
        self._generation = 0
        self._columns = LabelColumns(memory)
        self._shards: list[dict[bytes, int]] = [{} for _ in range(_SHARDS)]
        self._rows = _Rows()
        self._key_bytes = 0  # of the living
        self._pruned_meanwhile: array[int] | None = None  # ids pruned during a rebuild
        self.forgotten = 0  # series pruned since the start
        self._spared: IdSet | None = None  # what a prune that has begun leaves alone

    @property
    def next_id(self) -> int:
        """No series has this id or a higher one."""
        return self._next_id

    @property
    def generation(self) -> int:
        """Changes when a series was pruned: ids looked up before are then no longer valid."""
        return self._generation

    @property
    def series(self) -> int:
        """Living series."""
        return len(self._rows.keys) - self._columns.dead

    def series_of(self, metric: bytes) -> int:
        """Living series of a metric."""
        return self._columns.series_with(NAME, metric)

    def values_of(self, label: bytes) -> int:
        """Distinct values of a label that living series have."""
        return self._columns.values_of(label)

    @property
    def used_bytes(self) -> int:
        """What the index takes: shared memory, and about what the server's own dictionaries take."""
        columns = self._columns
        own = (
            self._key_bytes
            + len(self._rows.keys) * _SERIES_OVERHEAD
            + columns.text_bytes
            + columns.texts * _TEXT_OVERHEAD
        )
        return columns.allocated + own

    def snapshot(self) -> IndexSnapshot:
        return self._columns.snapshot()

    def resolve(self, key: bytes) -> int:
        """The id of a canonical key, a new one if the key is new.

        Raises IndexFull when the index is at its budget, or a metric or label at its limit, and another Overloaded or
        StorageError when shared memory runs out; nothing has changed then.
        """
        shard = self._shards[hash(key) % _SHARDS]
        known = shard.get(key)
        if known is None:
            return self._add(shard, key)
        if self._spared is not None:
            self._spared.add_one(known)
        return known

    def keys_of(self, ids: UInt32s) -> list[bytes]:
        """The keys of living series. Raises KeyError for an id that is not one. May be called on any thread."""
        rows = self._rows
        found = [key for row in rows.find(ids).tolist() if (key := rows.keys[row]) is not None]
        if len(found) < len(ids):
            raise KeyError(f"{len(ids) - len(found)} of {len(ids)} ids are not of living series")
        return found

    def living(self, ids: UInt32s) -> Bools:
        """For each of the ids whether it is of a living series. About 5 ns each."""
        return self._rows.living.contains(ids)

    def known_ids(self) -> UInt32s:
        """The ids, ascending, of the living series, and of pruned ones until the next rebuild. What is returned may be
        read on any thread."""
        return self._rows.ids[: len(self._rows.keys)]

    def restore(self, ids: UInt32s, keys: arrow.Keys) -> UInt32s:
        """Fill an empty index with what is on disk, in any order and with repetitions.

        Where two ids have one key (the series was pruned and came back), the higher id stands. An id that comes with
        two keys keeps the first. Returns the ids left out, ascending. The budget does not apply: what is stored must
        be readable. Takes about 0.5 s for 100,000 series.
        """
        assert not self._rows.keys, "restore fills an empty index"
        ids, first = np.unique(ids, return_index=True)
        texts = cast("list[bytes]", arrow.take_keys(keys, first).to_pylist())
        for series, key in zip(ids.tolist(), texts, strict=True):
            self._shards[hash(key) % _SHARDS][key] = series
        left_out = []
        for series, key in zip(ids.tolist(), texts, strict=True):
            if self._shards[hash(key) % _SHARDS][key] == series:
                self._columns.add(series, key)
                self._rows.append(series, key)
                self._key_bytes += len(key)
            else:
                left_out.append(series)
        if len(ids):
            self._next_id = max(self._next_id, int(ids[-1]) + 1)
        return np.array(left_out, np.uint32)

    def prune(self, ids: UInt32s, spared: IdSet | None = None) -> Iterator[None]:
        """Forget series that have no data any more, a few ms a step. Ids that are not in the index are no error.

        The generation changes once, with the first series that goes. A series that is in `spared` when its turn comes
        stays. Whatever is resolved after that change is added to `spared`, so that an id of the new generation is good
        for all of it. Rows stay where they are, for the queries that run, until a `rebuild`. Raises Overloaded when
        shared memory runs out; some may then remain.
        """
        assert self._spared is None, "one prune at a time"
        spared = IdSet() if spared is None else spared
        try:
            for start in range(0, len(ids), _PRUNED_AT_ONCE):
                some = ids[start : start + _PRUNED_AT_ONCE]
                some = some[self.living(some) & ~spared.contains(some)]
                if len(some) and self._spared is None:
                    self._spared = spared
                    self._generation += 1
                self._forget(some)
                yield
        finally:
            self._spared = None

    def _forget(self, ids: UInt32s) -> None:
        rows = self._rows
        for row, series in zip(rows.find(ids).tolist(), ids.tolist(), strict=True):
            key = rows.keys[row]
            assert key is not None
            self._columns.mark_dead(row, key)
            rows.keys[row] = None
            self._key_bytes -= len(key)
            del self._shards[hash(key) % _SHARDS][key]
            rows.living.discard_one(series)
            self.forgotten += 1
            if self._pruned_meanwhile is not None:
                self._pruned_meanwhile.append(series)

    @property
    def wants_rebuild(self) -> bool:
        """More than half of the rows are dead."""
        return self._columns.dead * 2 > len(self._rows.keys)

    def rebuild(self) -> Iterator[None]:
        """Move the living series to new shared memory, a few ms a step; ids stay as they are.

        The index can be used between steps, but only one rebuild may run. When all are moved, one step swaps the new
        columns in and retires the old; the steps after it free memory. Raises Overloaded when shared memory runs out;
        the index is then as it was.
        """
        assert self._pruned_meanwhile is None, "one rebuild at a time"
        pruned_meanwhile = self._pruned_meanwhile = array("I")
        fresh = LabelColumns(self._memory)
        moved = _Rows()
        try:
            # Series may be added and pruned while this stands at a yield.
            for row, key in enumerate(self._rows.keys):
                if key is not None:
                    series = int(self._rows.ids[row])
                    fresh.add(series, key)
                    moved.append(series, key)
                if row % _REBUILD_ROWS == _REBUILD_ROWS - 1:
                    yield
            pruned = np.array(pruned_meanwhile, np.uint32)
            for row in moved.find(pruned).tolist():
                gone = moved.keys[row]
                assert gone is not None
                fresh.mark_dead(row, gone)
                moved.keys[row] = None
            moved.living.discard(pruned)
        except BaseException:
            fresh.remove()
            raise
        finally:
            self._pruned_meanwhile = None
        old = self._columns
        self._columns, self._rows = fresh, moved
        self._leases.retire(old.base, old.remove)
        yield from old.forget()

    def _add(self, shard: dict[bytes, int], key: bytes) -> int:
        if self.used_bytes >= self._budget:
            raise IndexFull(
                f"the series index is full: {self.series} series take {self.used_bytes} bytes, {self._budget} are "
                "allowed. Drop labels that have many values, shorten the retention, or raise the limit of the index"
            )
        series = self._next_id
        if series > MAX_ID:
            raise IndexFull("every series id has been used: export the data and start a new folder")
        self._columns.add(series, key, self._label_bytes, self.limits)
        self._next_id = series + 1
        self._rows.append(series, key)
        self._key_bytes += len(key)
        shard[key] = series
        return series


class _Rows:
    """Ids and keys by row. One thread appends while others read: what a reader has taken hold of stays as it is."""

    def __init__(self) -> None:
        self.ids = np.empty(1024, np.uint32)  # ascending; more than are used
        self.keys: list[bytes | None] = []  # None where the series is dead
        self.living = IdSet()  # of the one thread alone

    def append(self, series: int, key: bytes) -> None:
        row = len(self.keys)
        if row == len(self.ids):
            self.ids = np.concatenate((self.ids, np.empty_like(self.ids)))
        self.ids[row] = series
        self.keys.append(key)
        self.living.add_one(series)

    def find(self, ids: UInt32s) -> Int64s:
        """Rows of those of the ids that are known."""
        used = len(self.keys)  # before `ids`, which may grow meanwhile
        ascending = self.ids[:used]
        rows = np.searchsorted(ascending, ids)
        rows, ids = rows[rows < used], ids[rows < used]
        found: Int64s = rows[ascending[rows] == ids]
        return found
