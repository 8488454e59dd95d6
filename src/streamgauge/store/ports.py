"""The three ports of the store: log, blocks and catalog. Outgrowing one machine swaps what stands behind them.

They are shaped so that an object store could serve: a log segment could be an object created once, a block is a set of
immutable objects, a catalog change is a compare-and-swap.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Floats, Int64s, UInt32s
from streamgauge.model.source import AggregateKind, Meter
from streamgauge.store.damage import Damage
from streamgauge.store.events.ports import EventCatalog, EventChange

FIRST_TIME = int(np.iinfo(np.int64).min)
LAST_TIME = int(np.iinfo(np.int64).max)
DAY_MS = 86_400_000

# ---- log ----------------------------------------------------------------------------------------------------------


class RecordKind(enum.IntEnum):
    SERIES = 1  # definitions: series id and key
    SAMPLES = 2
    METADATA = 3
    EVENTS = 4
    STREAMS = 5  # definitions of what events are of


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log. `kind` may be a number that this version does not know: such a record is preserved."""

    commit: int  # ascending; every record of one acknowledged append has the same
    kind: int
    payload: bytes | memoryview  # from `replay` a read-only view, valid for as long as it is held


class Log(Protocol):
    """Appends are durable when they return. One thread uses it at a time."""

    def replay(self) -> Iterator[Record]:
        """Every readable record in order of commit. A damaged stretch is skipped and noted in `damage`."""

    @property
    def damage(self) -> Sequence[Damage]: ...

    def reserve(self, size: int) -> bool:
        """Make sure that `size` more bytes fit the open segment, opening a new one if they do not.

        True when the segment is new: every series that it will use must be defined in it again.
        """

    def append(self, records: Sequence[Record]) -> None:
        """Write the records and sync them, all in the segment that `reserve` made sure of.

        Raises SyncFailed; nothing of them then counts as written, the segment is sealed and the next reserve opens
        another.
        """

    def trim(self, through: int) -> None:
        """Remove the segments all of whose commits are <= `through`."""

    def rotate(self) -> int:
        """Let the next append open another segment, so that what there is can be trimmed once blocks hold it. The last
        commit that was ever given."""

    def may_hold(self, through: int) -> bool:
        """Whether a commit <= `through` may still be in a segment."""

    def close(self) -> None: ...


# ---- blocks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """What a block's footer says. Times are ms, both ends inclusive.

    Blocks that are not `late` are disjoint in (series, time) from each other. A row of a late block wins over the same
    (series, time) of a block that is not; among late ones the higher `last_commit` wins.

    With a `resolution` the block holds aggregates, of one or more whole days, and no other block any of these days:
    its window is the start of the first.
    """

    id: str
    first_commit: int
    last_commit: int
    min_time: int
    max_time: int
    window: int  # start of the day (UTC, ms) that all rows lie in, or -1 for a late block over several days
    late: bool
    level: int  # 0 from a flush, one more than its highest parent from a compaction
    series: int
    samples: int
    bytes: int
    parents: tuple[str, ...] = ()
    tombstones: tuple[int, ...] = ()  # ids of those whose samples are no longer in its files, ascending
    resolution: int = 0  # ms between its samples, each an aggregate of many; 0 for the samples themselves


@dataclass(frozen=True, slots=True)
class SortedRows:
    """Rows for a block, ordered by (metric name, labels, time), without duplicates.

    Row i of `ids`, `keys`, `counts` is one series; its samples stand together in `times` and `values`.
    """

    ids: UInt32s
    keys: pa.LargeBinaryArray  # canonical keys, ascending
    counts: Int64s
    times: Int64s
    values: Floats


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in a block's order: counts[i] of the i-th series."""

    counts: Int64s
    times: Int64s
    values: npt.NDArray[Any]  # Floats, or aggregates.AggregateRows


SAMPLE_BYTES = 16
"""A time and a value in memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of chosen series from one place, in order of the choice: series i has counts[i] rows, ordered by time;
    of rows with the same time the later in the array is the later in commit order."""

    counts: Int64s
    times: Int64s
    values: Floats

    @property
    def size(self) -> int:
        """Bytes."""
        return part_bytes(len(self.counts), len(self.times))


def part_bytes(series: int, samples: int) -> int:
    """What a part of so many chosen series and samples takes."""
    return 8 * series + SAMPLE_BYTES * samples


class BlockReader(Protocol):
    """One open block. `close` it, or use it as a context manager."""

    meta: BlockMeta

    def series_ids(self) -> UInt32s:
        """Series ids in the block's order."""

    def keys(self) -> pa.LargeBinaryArray:
        """Canonical keys in the block's order."""

    def time_bounds(self) -> tuple[Int64s, Int64s]:
        """First and last time of each series, in the block's order."""

    def read(
        self, ids: UInt32s, start: int, end: int, meter: Meter, aggregate: AggregateKind = AggregateKind.LAST
    ) -> Part:
        """Samples of the series `ids` (ascending) with start <= time <= end. The part stays charged to the meter.

        aggregate: which, where the block holds aggregates."""

    def close(self) -> None: ...


class Blocks(Protocol):
    def scan(self) -> tuple[list[BlockMeta], list[Damage]]:
        """Every whole block there is, from the footers; what cannot be read is set aside, half-written ones removed."""

    def write(self, meta: BlockMeta, rows: SortedRows) -> BlockMeta:
        """Write a block durably; returns `meta` with series, samples, bytes and time range filled in."""

    def open(self, block_id: str) -> BlockReader: ...

    def remove(self, block_id: str) -> None:
        """Remove a block for good. One that is not there is no error."""

    def set_aside(self, block_id: str, why: str) -> Damage:
        """Move a block that cannot be read out of the way, never deleting it."""


# ---- catalog ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A deletion: the samples of `series` with start <= time <= end (ms) in every block whose last_commit is at most
    `commit` and that does not list the tombstone's id, for then they are no longer in it."""

    id: int  # above that of every tombstone that the catalog or a block's footer names
    commit: int
    start: int
    end: int
    series: bytes  # series ids, ascending, uint32 little-endian


@dataclass(frozen=True, slots=True)
class CatalogState:
    store_id: str  # chosen at random when the folder was made
    flushed_through: int  # every commit up to here is in blocks
    next_series_id: int  # no id at or above this is in a block; the log may define higher ones
    blocks: tuple[BlockMeta, ...] = ()
    metadata: tuple[tuple[str, str, str, str], ...] = ()  # metric, type, help, unit
    tombstones: tuple[Tombstone, ...] = ()  # by id
    dropped_before: int = FIRST_TIME  # what retention let go was older than this time, ms
    events: EventCatalog = field(default_factory=EventCatalog)


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """A change that happens whole or not at all. None leaves a value as it is."""

    add: Sequence[BlockMeta] = ()
    remove: Sequence[str] = ()
    flushed_through: int | None = None  # raises the state's, if it is higher
    next_series_id: int | None = None
    metadata: Sequence[tuple[str, str, str, str]] = field(default=())
    add_tombstones: Sequence[Tombstone] = ()
    remove_tombstones: Sequence[int] = ()
    dropped_before: int = FIRST_TIME  # raises the state's, if it is higher
    events: EventChange = field(default_factory=EventChange)


class Catalog(Protocol):
    def load(self) -> CatalogState: ...

    def apply(self, change: CatalogChange) -> None:
        """Make the change durable, or raise StorageError and change nothing."""

    def close(self) -> None: ...


def no_ids() -> UInt32s:
    return np.empty(0, np.uint32)
