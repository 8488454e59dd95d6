"""Writing a block of aggregates, in bounded memory: of a day's samples, or of finer aggregates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from streamgauge.model.arrays import Floats
from streamgauge.store.aggregates import aggregated, coarser
from streamgauge.store.block_encodings import FLUSHED
from streamgauge.store.block_format import successor
from streamgauge.store.block_merge import MergedSeries, merge_rows, merge_series
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.downsample import ThinningPlan
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import BlockMeta, Rows


def perform_thinning(plan: ThinningPlan, blocks: LocalBlocks) -> BlockMeta:
    """Write what the plan says and return it; the inputs stay. Raises Corrupt, naming the block that cannot be read,
    and StorageError; nothing is then left behind but what a scan will find without a catalog entry.

    Memory: that of a compaction.
    """
    hit("thin.before_write")
    with ExitStack() as stack:
        readers = [stack.enter_context(blocks.open(meta.id)) for meta in plan.inputs]
        series = merge_series(readers)
        if plan.inputs[0].resolution:
            pieces = _whole_series(merge_rows(readers, series), lambda which, rows: coarser(rows, plan.resolution))
        else:
            pieces = _of_samples(readers, series, plan.resolution, _numbers_before(plan, series, blocks))
        output = successor(plan.inputs, plan.window, late=False, resolution=plan.resolution)
        writer = stack.enter_context(blocks.writer(output, FLUSHED))
        for which, rows in pieces:
            writer.append(series.ids[which], rows.counts, rows.times, rows.values)
        written = writer.finish(series.keys)
    hit("thin.after_write")
    return written


def _of_samples(
    readers: Sequence[LocalBlockReader], series: MergedSeries, resolution: int, before: Floats
) -> Iterator[tuple[slice, Rows]]:
    def thin(which: slice, rows: Rows) -> Rows:
        out, before[which] = aggregated(rows, resolution, before[which])
        return out

    for which, rows in _whole_series(merge_rows(readers, series), thin):
        yield which, coarser(rows, resolution)  # joins what lies in one bucket and came in two pieces


def _whole_series(
    pieces: Iterator[tuple[slice, Rows]], thin: Callable[[slice, Rows], Rows]
) -> Iterator[tuple[slice, Rows]]:
    """The pieces made thinner, those of one long series in one."""
    held: tuple[slice, list[Rows]] | None = None
    for which, rows in pieces:
        thinner = thin(which, rows)
        if held is not None and held[0] == which:
            held[1].append(thinner)
            continue
        if held is not None:
            yield held[0], _joined(held[1])
        held = which, [thinner]
    if held is not None:
        yield held[0], _joined(held[1])


def _joined(parts: list[Rows]) -> Rows:
    """Several parts are of one series."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.sum([part.counts for part in parts], axis=0),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _numbers_before(plan: ThinningPlan, series: MergedSeries, blocks: LocalBlocks) -> Floats:
    """The latest number of each series in the block before, NaN where it has none."""
    before = np.full(len(series.ids), np.nan)
    if plan.before is None:
        return before
    with blocks.open(plan.before.id) as reader:
        ids, numbers = reader.series_ids(), reader.last_numbers()
    order = np.argsort(ids)
    at = np.searchsorted(ids, series.ids, sorter=order)
    known = np.flatnonzero(at < len(ids))
    known = known[ids[order[at[known]]] == series.ids[known]]
    before[known] = numbers[order[at[known]]]
    return before
