"""What the helper process does for the event store, as functions of picklable arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.errors import Corrupt
from streamgauge.model.arrays import Int64s
from streamgauge.model.event_source import EventRange, Fixed
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.merge import merge_blocks
from streamgauge.store.events.ports import Conditions, EventBlockMeta, EventFlush, EventRows
from streamgauge.store.events.runs import EventRun, events_of
from streamgauge.store.events.snapshot import head_streams
from streamgauge.store.patience import Patience


def run_event_flush(data: Path, runs: Sequence[EventRun], level: int) -> EventBlockMeta:
    """Write the runs as a block, which counts for nothing until the catalog names it. It may have streams alone.

    level: 0, or UNDIVIDED where there is no time to divide payloads."""
    events = _joined([events_of(run.attached().rows(run)) for run in runs])
    flush = EventFlush(runs[0].first_commit, runs[-1].last_commit, events, head_streams(runs))
    return LocalEventBlocks(data).write(flush, level)


def run_event_compaction(data: Path, metas: Sequence[EventBlockMeta]) -> EventBlockMeta | None:
    """Write one block that takes the place of neighbours. None when nothing is in them."""
    return merge_blocks(LocalEventBlocks(data), metas)


@dataclass(frozen=True, slots=True)
class Pruned:
    """A block of which events were to go. written: what takes its place; None where nothing is left."""

    gone: int  # events
    written: EventBlockMeta | None


def run_event_pruning(data: Path, meta: EventBlockMeta, condition: str, conditions: Conditions, rule: str) -> Pruned:
    """Write a block anew without the events that fulfil a condition, unless there are none. `rule`: what is thereby
    carried out, to be noted in the new block, or ""."""
    blocks = LocalEventBlocks(data)
    with blocks.open(meta.id) as reader:
        streams, indexes = conditions.fulfilling(reader, condition)
        if not len(streams):
            return Pruned(0, meta)
        rows = [batch.columns for batch in reader.read([Fixed.STREAM, Fixed.INDEX], EventRange())]
    held = _keys(*(np.concatenate([columns[place].to_numpy() for columns in rows]) for place in range(2)))
    omit = np.isin(held, _keys(streams, indexes))
    pruned = (*meta.pruned, rule) if rule else meta.pruned
    return Pruned(int(np.count_nonzero(omit)), merge_blocks(blocks, [meta], {meta.id: omit}, pruned))


def _keys(streams: Int64s, indexes: Int64s) -> npt.NDArray[np.void]:
    """One value for each event."""
    return np.rec.fromarrays([streams, indexes]).view(np.dtype([("stream", np.int64), ("index", np.int64)]))


def _joined(parts: Sequence[EventRows]) -> EventRows:
    return EventRows(
        np.concatenate([part.streams for part in parts]),
        np.concatenate([part.indexes for part in parts]),
        np.concatenate([part.times for part in parts]),
        pa.concat_arrays([part.payloads for part in parts]),
    )


def find_event_damage(data: Path, metas: Sequence[EventBlockMeta]) -> list[tuple[EventBlockMeta, str]]:
    """The blocks that are not what was written, each with what is wrong."""
    blocks = LocalEventBlocks(data)
    found = []
    for meta in metas:
        try:
            Patience().read(partial(_read_all, blocks, meta.id))
        except Corrupt as error:
            found.append((meta, error.message))
    return found


def _read_all(blocks: LocalEventBlocks, block_id: str) -> None:
    with blocks.open(block_id) as reader:
        reader.streams()
        for group in range(len(reader.group_rows)):
            reader.row_group(group)
