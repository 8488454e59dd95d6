"""What must hold for blocks: each on its own, and all together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc

from streamgauge.errors import StorageError
from streamgauge.store.block_format import MAX_ROW_GROUP
from streamgauge.store.block_merge import merge_rows, merge_series
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.clean import samples_left
from streamgauge.store.ports import DAY_MS, BlockMeta, Tombstone
from streamgauge.store.ranges import starts_of
from streamgauge.store.resolutions import end_of, raw, thinned, thinned_through
from streamgauge.store.tombstones import applies, series_of


def check_block(reader: LocalBlockReader) -> list[str]:
    """Every violated invariant of one block, as sentences. Reads all of it, a row group at a time."""
    problems = _prefixed(reader.meta, _check_meta(reader.meta))
    try:
        problems += _prefixed(reader.meta, _check_series(reader))
        problems += _prefixed(reader.meta, _check_rows(reader))
    except StorageError as error:
        problems.append(error.message)
    return problems


def _prefixed(meta: BlockMeta, problems: Iterator[str]) -> list[str]:
    return [f"block {meta.id}: {problem}" for problem in problems]


def _check_meta(meta: BlockMeta) -> Iterator[str]:
    if not 0 <= meta.first_commit <= meta.last_commit:
        yield f"its commits run from {meta.first_commit} to {meta.last_commit}"
    if meta.min_time > meta.max_time:
        yield f"its times run from {meta.min_time} to {meta.max_time}"
    if meta.window == -1:
        if not meta.late:
            yield "it spans several days and is not late"
    elif meta.window % DAY_MS:
        yield f"its window {meta.window} is not the start of a day"
    elif meta.resolution:
        yield from _check_aggregates(meta)
    elif not meta.window <= meta.min_time <= meta.max_time < meta.window + DAY_MS:
        yield f"its times {meta.min_time} to {meta.max_time} are not all in its window {meta.window}"
    if (meta.level == 0) != (not meta.parents):
        yield f"it has level {meta.level} and {len(meta.parents)} parents"
    if list(meta.tombstones) != sorted(set(meta.tombstones)) or any(number < 1 for number in meta.tombstones):
        yield f"the deletions that it lists, {meta.tombstones}, do not ascend from 1"


def _check_aggregates(meta: BlockMeta) -> Iterator[str]:
    if meta.resolution < 0 or DAY_MS % meta.resolution:
        yield f"its resolution {meta.resolution} does not divide a day"
    if meta.late or meta.level == 0:
        yield "it has aggregates, and is late or from a flush"
    if meta.min_time < meta.window:  # what was before the first that is left may have been deleted
        yield f"its first time {meta.min_time} is before its window {meta.window}"


def _check_series(reader: LocalBlockReader) -> Iterator[str]:
    meta, ids, keys = reader.meta, reader.series_ids(), reader.keys()
    low, high = reader.time_bounds()
    if not len(ids) == len(keys) == meta.series > 0:
        yield f"its footer says {meta.series} series, its series file has {len(ids)}"
        return
    if len(np.unique(ids)) != len(ids):
        yield "a series id occurs more than once"
    if not pc.less(keys[:-1], keys[1:]).to_numpy(False).all():
        yield "its series are not in the order of their keys, or one occurs twice"
    if (reader.rows <= 0).any() or not np.array_equal(reader.first_rows, starts_of(reader.rows)):
        yield "the rows of its series do not follow each other"
    if int(reader.rows.sum()) != meta.samples:
        yield f"its footer says {meta.samples} samples, its series have {int(reader.rows.sum())}"
    if (int(low.min()), int(high.max())) != (meta.min_time, meta.max_time):
        yield f"its footer says times {meta.min_time} to {meta.max_time}, its series {low.min()} to {high.max()}"


def _check_rows(reader: LocalBlockReader) -> Iterator[str]:
    samples = reader.samples
    if int(samples.row_ends[-1]) != int(reader.rows.sum()):
        yield f"it has {int(samples.row_ends[-1])} rows and its series have {int(reader.rows.sum())}"
        return
    if (np.diff(samples.row_ends, prepend=0) > MAX_ROW_GROUP).any():
        yield f"it has a row group of more than {MAX_ROW_GROUP} rows"
    low, high = reader.time_bounds()
    ends = reader.first_rows + reader.rows
    before = np.iinfo(np.int64).min
    for group in range(len(samples.row_ends)):
        times, _ = samples.decode(group, group + 1)
        rows = np.arange(samples.row_starts[group], samples.row_ends[group])
        series = np.searchsorted(ends, rows, "right")
        if not np.array_equal(samples.series_ids(group, group + 1), reader.series_ids()[series]):
            yield f"row group {group} has rows of other series than the series file says"
            return
        first = rows == reader.first_rows[series]
        last = rows == ends[series] - 1
        ascending = np.concatenate(([before], times[:-1])) < times
        if not (ascending | first).all():
            yield f"times in row group {group} do not ascend within a series"
            return
        if not (np.array_equal(times[first], low[series[first]]) and np.array_equal(times[last], high[series[last]])):
            yield f"a series' first or last time in row group {group} is not what the series file says"
            return
        before = times[-1]
        if reader.meta.resolution and ((times + 1) % reader.meta.resolution).any():
            yield f"row group {group} has aggregates that do not end where one of {reader.meta.resolution} ms does"


def check_blocks(metas: Sequence[BlockMeta], open_block: Callable[[str], LocalBlockReader]) -> list[str]:
    """Every violated invariant between blocks, as sentences. Opens the blocks of one day at a time, and reads
    rows only where series overlap in time."""
    problems = []
    if len({meta.id for meta in metas}) != len(metas):
        problems.append("a block is listed more than once")
    problems += _check_days(metas)
    normal: defaultdict[int, list[BlockMeta]] = defaultdict(list)
    for meta in metas:
        if not meta.late:
            normal[meta.window].append(meta)
    for blocks in (blocks for blocks in normal.values() if len(blocks) > 1):
        problems += _check_disjoint(blocks, open_block)
    late = sorted((meta for meta in metas if meta.late), key=lambda meta: meta.last_commit)
    for groups in (*normal.values(), late):
        problems += [
            f"blocks {a.id} and {b.id} hold the same commits of the same time"
            for i, a in enumerate(groups)
            for b in groups[i + 1 :]
            if _share_commits(a, b) and _share_days(a, b)
        ]
    return problems


def _check_days(metas: Sequence[BlockMeta]) -> Iterator[str]:
    """A day that is in a block of aggregates is in no other block, nor is a day before it in one of samples."""
    blocks = thinned(metas)
    for a, b in pairwise(blocks):
        if b.window < end_of(a):
            yield f"blocks {a.id} and {b.id} have aggregates of the same day"
    through = thinned_through(metas)
    for meta in raw(metas):
        if meta.min_time < through:
            yield f"block {meta.id} has samples before {through}, up to where there are only aggregates"


def _share_commits(a: BlockMeta, b: BlockMeta) -> bool:
    return a.first_commit <= b.last_commit and b.first_commit <= a.last_commit


def _share_days(a: BlockMeta, b: BlockMeta) -> bool:
    return a.min_time // DAY_MS <= b.max_time // DAY_MS and b.min_time // DAY_MS <= a.max_time // DAY_MS


def _check_disjoint(blocks: list[BlockMeta], open_block: Callable[[str], LocalBlockReader]) -> list[str]:
    """Normal blocks of one day must not have a series and time in common."""
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(open_block(meta.id)) for meta in blocks]
            if not _bounds_overlap(readers):
                return []
            kept = sum(len(rows.times) for _, rows in merge_rows(readers, merge_series(readers)))
    except StorageError as error:
        return [error.message]
    doubled = sum(meta.samples for meta in blocks) - kept
    if doubled == 0:
        return []
    return [f"blocks {', '.join(meta.id for meta in blocks)}, none of them late, have {doubled} samples in common"]


def _bounds_overlap(readers: Sequence[LocalBlockReader]) -> bool:
    """Whether a series has time ranges in two blocks that touch."""
    ids = np.concatenate([reader.series_ids() for reader in readers])
    low, high = (np.concatenate([reader.time_bounds()[end] for reader in readers]) for end in (0, 1))
    order = np.lexsort((low, ids))
    ids, low, high = ids[order], low[order], high[order]
    return bool(((ids[1:] == ids[:-1]) & (low[1:] <= high[:-1])).any())


# ---- deletions ------------------------------------------------------------------------------------------------------


def check_tombstones(
    tombstones: Sequence[Tombstone],
    metas: Sequence[BlockMeta],
    next_series_id: int,
    open_block: Callable[[str], LocalBlockReader],
) -> list[str]:
    """Every violated invariant of deletions that wait, as sentences. Reads rows only of blocks in which one was carried
    out."""
    problems = []
    for tombstone in tombstones:
        wrong = [*_check_tombstone(tombstone, next_series_id)]
        if not wrong:
            wrong = [problem for meta in metas for problem in _check_applied(tombstone, meta, open_block)]
        problems += [f"deletion {tombstone.id}: {problem}" for problem in wrong]
    return problems


def _check_tombstone(tombstone: Tombstone, next_series_id: int) -> Iterator[str]:
    if tombstone.id < 1:
        yield "its id is not above 0"
    if tombstone.start > tombstone.end:
        yield f"its times run from {tombstone.start} to {tombstone.end}"
    if not tombstone.series or len(tombstone.series) % 4:
        yield f"its series ids take {len(tombstone.series)} bytes"
        return
    ids = series_of(tombstone)
    if (ids[1:] <= ids[:-1]).any():
        yield "its series ids do not ascend"
    if int(ids[-1]) >= next_series_id:
        yield f"it means series {ids[-1]}, and none has an id above {next_series_id - 1}"


def _check_applied(
    tombstone: Tombstone, meta: BlockMeta, open_block: Callable[[str], LocalBlockReader]
) -> Iterator[str]:
    """A block that lists a tombstone has no sample that it means, unless it also has later commits. An aggregate may
    stand where it means some: of those samples that were left when it was made."""
    if tombstone.id not in meta.tombstones or meta.resolution:
        return
    if meta.first_commit > tombstone.commit:
        yield f"block {meta.id} lists it, and is of later commits"
        return
    # It may have been carried out before the aggregates were made: then those stay that it meant in part.
    wholly_meant = replace(tombstone, start=tombstone.start + max(meta.resolution - 1, 0))
    if wholly_meant.start <= wholly_meant.end and applies(wholly_meant, replace(meta, tombstones=(), resolution=0)):
        try:
            with open_block(meta.id) as reader:
                left = samples_left(reader, [wholly_meant])
        except StorageError as error:
            yield error.message
            return
        if left < meta.samples:
            yield f"block {meta.id} lists it, and still has {meta.samples - left} of its samples"
