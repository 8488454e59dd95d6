"""Compaction: which blocks are merged, and the merge itself, in bounded memory.

What keeps it correct, given that a late block wins over a normal one and a later late block over an earlier:

- normal blocks are disjoint, so any of them may be merged;
- late blocks are merged with each other only where no other late block of the same days stands between them;
- late blocks are merged into normal ones only all together, with every block of that day;
- a late block over several days is split into late blocks of one day, which keep its commit numbers;
- a block that a deletion waits for is not compacted: what comes out could have later commits than the deletion means.
  `clean` rewrites it first, alone. Whoever carries out a plan sees to that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamgauge.errors import StorageError
from streamgauge.model.arrays import Bools
from streamgauge.store.block_encodings import BlockEncoding, compacted
from streamgauge.store.block_format import successor
from streamgauge.store.block_merge import MergedSeries, merge_rows, merge_series
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.block_writer import BlockWriter
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import DAY_MS, BlockMeta, Rows
from streamgauge.store.ranges import starts_of
from streamgauge.store.resolutions import raw

MIN_INPUTS = 4
MAX_INPUTS = 16
"""Blocks merged at once. Each holds a few MB of series columns and decoded rows."""
LATE_SHARE = 0.25
"""A day is merged with its late blocks once they have this share of its samples: less would rewrite it too often."""
CRUMBS = 1 / 16
"""A day that has ended is merged into one block, unless all but the largest have less than this share of its samples
and are fewer than MIN_INPUTS."""
_DAYS_AT_ONCE = 16
"""Days that a split writes in one pass: each has row groups of its own in memory."""


@dataclass(frozen=True, slots=True)
class CompactionPlan:
    """Blocks to replace by one, or, where `split`, one late block to replace by one for each day."""

    inputs: tuple[BlockMeta, ...]  # a later one wins
    late: bool  # what comes out is late
    split: bool = False
    lasting: bool = False  # what comes out is a day that has ended, in one block: worth compressing well

    @property
    def reads(self) -> tuple[BlockMeta, ...]:
        """Every block that it takes something from."""
        return self.inputs

    @property
    def samples(self) -> int:
        return sum(meta.samples for meta in self.inputs)


# ---- planning -------------------------------------------------------------------------------------------------------


def plan_compaction(
    metas: Sequence[BlockMeta], now: int, idle: bool = False, held: Container[str] = ()
) -> CompactionPlan | None:
    """The next compaction that is worth while, or None. `now` in ms. The cheapest comes first. Blocks whose ids are
    `held` stay as they are.

    What the last flush added to may get more from the next one, and waits for it, unless flushes are `idle`.

    Blocks are merged when each row thereby comes into a block at least twice the size: a row is rewritten about
    log2(samples of a day / samples of a flush) times.
    """
    metas = raw(metas)
    newest_commit = max((meta.last_commit for meta in metas), default=0)
    plans: list[CompactionPlan] = []
    wide = _wide(metas)
    if wide:
        quiet = idle or wide[-1].last_commit < newest_commit
        plans += _plan_wide(metas, _free(wide, held), quiet)
    for window, blocks in _by_window(metas).items():
        normal, late = _normal(blocks), _late(blocks)
        settled = window + DAY_MS <= now and (idle or max(meta.last_commit for meta in blocks) < newest_commit)
        for run in (_worthwhile_run(_free(normal, held)), _worthwhile_run(_free(late, held))):
            if run and _may_merge(run, metas):
                plans.append(_merge(run))
        if _touched(blocks, wide) or len(_free(blocks, held)) < len(blocks):
            continue
        if _is_heavy(late, normal) or (settled and _is_scattered(blocks)):
            plans.append(towards_one(blocks, lasting=settled))
    return min(plans, key=lambda plan: plan.samples, default=None)


def full_plan(metas: Sequence[BlockMeta]) -> CompactionPlan | None:
    """The next step towards one compacted block a day. To be asked again after each step, until it is None."""
    metas = raw(metas)
    wide = _wide(metas)
    if wide:
        return _plan_wide(metas, wide, quiet=True)[0]
    for blocks in _by_window(metas).values():
        if len(blocks) > 1 or blocks[0].late or blocks[0].level == 0:
            return towards_one(blocks, lasting=True)
    return None


def _plan_wide(metas: Sequence[BlockMeta], wide: list[BlockMeta], quiet: bool) -> list[CompactionPlan]:
    """Late blocks over several days: merged while they keep coming, so that a split does not make crumbs of them."""
    run = wide[:MAX_INPUTS] if quiet else _worthwhile_run(wide)
    if len(run) > 1 and _may_merge(run, metas):
        return [_merge(run)]
    if wide and (quiet or wide[0].level >= 2):
        return [CompactionPlan((wide[0],), late=True, split=True)]
    return []


def towards_one(blocks: list[BlockMeta], lasting: bool) -> CompactionPlan:
    """Merge all blocks of a day, in order of commit, or, if they are too many, some, as a step towards that."""
    if len(blocks) <= MAX_INPUTS:
        return CompactionPlan((*_normal(blocks), *_late(blocks)), late=False, lasting=lasting)
    normal, late = _normal(blocks), _late(blocks)
    more = max(normal, late, key=len)
    return _merge(_smallest_run(more, MAX_INPUTS))


def _merge(run: Sequence[BlockMeta]) -> CompactionPlan:
    return CompactionPlan(tuple(run), late=run[0].late)


def _may_merge(run: Sequence[BlockMeta], metas: Sequence[BlockMeta]) -> bool:
    """Whether no late block stands between late blocks that are to become one."""
    if not run[0].late:
        return True
    inside = {meta.id for meta in run}
    return not any(
        other.late
        and other.id not in inside
        and run[0].last_commit <= other.last_commit <= run[-1].last_commit
        and any(_share_days(other, meta) for meta in run)
        for other in metas
    )


def _worthwhile_run(blocks: list[BlockMeta]) -> list[BlockMeta]:
    """The longest run of neighbours of which none has more than half of the samples; empty if none is long enough."""
    best: list[BlockMeta] = []
    for start in range(len(blocks)):
        total = largest = 0
        for stop, meta in enumerate(blocks[start : start + MAX_INPUTS], start + 1):
            total, largest = total + meta.samples, max(largest, meta.samples)
            if stop - start >= MIN_INPUTS and 2 * largest <= total and stop - start > len(best):
                best = blocks[start:stop]
    return best


def _smallest_run(blocks: list[BlockMeta], length: int) -> list[BlockMeta]:
    starts = range(max(len(blocks) - length, 0) + 1)
    start = min(starts, key=lambda start: sum(meta.samples for meta in blocks[start : start + length]))
    return blocks[start : start + length]


def _is_heavy(late: list[BlockMeta], normal: list[BlockMeta]) -> bool:
    late_samples, normal_samples = (sum(meta.samples for meta in blocks) for blocks in (late, normal))
    return late_samples > 0 and late_samples >= LATE_SHARE * normal_samples


def _is_scattered(blocks: list[BlockMeta]) -> bool:
    samples = [meta.samples for meta in blocks]
    return len(blocks) > 1 and (len(blocks) >= MIN_INPUTS or sum(samples) - max(samples) >= CRUMBS * sum(samples))


def _by_window(metas: Sequence[BlockMeta]) -> dict[int, list[BlockMeta]]:
    windows: defaultdict[int, list[BlockMeta]] = defaultdict(list)
    for meta in sorted(metas, key=lambda meta: (meta.window, meta.last_commit)):
        if meta.window != -1:
            windows[meta.window].append(meta)
    return windows


def _wide(metas: Sequence[BlockMeta]) -> list[BlockMeta]:
    return sorted((meta for meta in metas if meta.window == -1), key=lambda meta: meta.last_commit)


def _free(blocks: list[BlockMeta], held: Container[str]) -> list[BlockMeta]:
    return [meta for meta in blocks if meta.id not in held]


def _normal(blocks: list[BlockMeta]) -> list[BlockMeta]:
    return [meta for meta in blocks if not meta.late]


def _late(blocks: list[BlockMeta]) -> list[BlockMeta]:
    return [meta for meta in blocks if meta.late]


def _touched(blocks: list[BlockMeta], wide: list[BlockMeta]) -> bool:
    window = blocks[0].window
    return any(other.min_time < window + DAY_MS and other.max_time >= window for other in wide)


def _share_days(a: BlockMeta, b: BlockMeta) -> bool:
    return a.min_time // DAY_MS <= b.max_time // DAY_MS and b.min_time // DAY_MS <= a.max_time // DAY_MS


# ---- performing -----------------------------------------------------------------------------------------------------


def perform_compaction(plan: CompactionPlan, blocks: LocalBlocks) -> list[BlockMeta]:
    """Write what the plan says and return it; the inputs stay. Raises Corrupt, naming the block that cannot be read,
    and StorageError; nothing is then left behind but what a scan will find without a catalog entry.

    Memory: some 100 MB, for each input its series columns (4 MB for 100,000 series) and 10 MB, and each distinct series
    key once.
    """
    hit("compact.before_write")
    written: list[BlockMeta] = []
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(blocks.open(meta.id)) for meta in plan.inputs]
            series = merge_series(readers)
            encoding = compacted(plan.lasting)
            if plan.split:
                _split(plan, readers, series, blocks, encoding, written)
            else:
                _merge_into_one(plan, readers, series, blocks, encoding, written)
        hit("compact.after_write")
    except BaseException:
        for meta in written:
            with suppress(StorageError):
                blocks.remove(meta.id)
        raise
    return written


def _merge_into_one(
    plan: CompactionPlan,
    readers: Sequence[LocalBlockReader],
    series: MergedSeries,
    blocks: LocalBlocks,
    encoding: BlockEncoding,
    written: list[BlockMeta],
) -> None:
    window = plan.inputs[0].window
    with blocks.writer(_output(plan, window), encoding) as writer:
        for which, rows in merge_rows(readers, series):
            writer.append(series.ids[which], rows.counts, rows.times, rows.values)
        written.append(writer.finish(series.keys))


def _split(
    plan: CompactionPlan,
    readers: Sequence[LocalBlockReader],
    series: MergedSeries,
    blocks: LocalBlocks,
    encoding: BlockEncoding,
    written: list[BlockMeta],
) -> None:
    """One pass over the block to learn its days, and one for every _DAYS_AT_ONCE of them."""
    days = np.unique(np.concatenate([np.unique(rows.times // DAY_MS) for _, rows in merge_rows(readers, series)]))
    for start in range(0, len(days), _DAYS_AT_ONCE):
        with ExitStack() as stack:
            writers = {
                day: stack.enter_context(blocks.writer(_output(plan, day * DAY_MS), encoding))
                for day in days[start : start + _DAYS_AT_ONCE].tolist()
            }
            present = {day: np.zeros(len(series.ids), np.bool_) for day in writers}
            for which, rows in merge_rows(readers, series):
                for day, writer in writers.items():
                    _append_day(day, writer, which, rows, series, present[day])
            written += [writer.finish(series.keys.filter(pa.array(present[day]))) for day, writer in writers.items()]


def _append_day(day: int, writer: BlockWriter, which: slice, rows: Rows, series: MergedSeries, present: Bools) -> None:
    """Append the rows of one day and mark the series that have some."""
    mine = rows.times // DAY_MS == day
    counts = np.add.reduceat(mine, starts_of(rows.counts), dtype=np.int64)
    some = counts > 0
    present[which] |= some
    writer.append(series.ids[which][some], counts[some], rows.times[mine], rows.values[mine])


def _output(plan: CompactionPlan, window: int) -> BlockMeta:
    return successor(plan.inputs, window, plan.late)
