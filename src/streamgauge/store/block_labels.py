"""Canonical keys to the label maps of a series file and back, whole columns at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Int64s
from streamgauge.model.labels import NAME, SEPARATOR
from streamgauge.store.ranges import ranges

_TEXT = pa.map_(pa.string(), pa.string())


def keys_to_labels(keys: pa.BinaryArray) -> pa.MapArray:
    """map<string, string> of each key: the metric name first, under `__name__`, then the others in order of the key.

    Raises pa.ArrowInvalid for text that is not UTF-8.
    """
    split = pc.split_pattern(keys, SEPARATOR)  # metric, name, value, …, "" of each key
    parts = split.values.slice(split.offsets[0].as_py(), split.offsets[-1].as_py() - split.offsets[0].as_py())
    offsets = split.offsets.to_numpy().astype(np.int64) - split.offsets[0].as_py()
    first = offsets[:-1]
    pairs = (np.diff(offsets) - 2) // 2
    named = pc.binary_length(parts.take(pa.array(first))).to_numpy() > 0
    entries = pairs + named
    ends = np.cumsum(entries)
    starts = ends - entries
    # Where the texts of each entry stand among `parts`; the metric's name is appended behind them.
    name_at = np.empty(int(entries.sum()), np.int64)
    value_at = np.empty_like(name_at)
    metric_rows = starts[named]
    name_at[metric_rows] = len(parts)
    value_at[metric_rows] = first[named]
    pair_rows = ranges(starts + named, pairs)
    within = pair_rows - np.repeat(starts + named, pairs)
    name_at[pair_rows] = np.repeat(first, pairs) + 1 + 2 * within
    value_at[pair_rows] = name_at[pair_rows] + 1
    texts = pa.concat_arrays([parts, pa.array([NAME], parts.type)]).cast(pa.string())
    map_offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(map_offsets), texts.take(pa.array(name_at)), texts.take(pa.array(value_at)))


def labels_to_keys(labels: pa.MapArray) -> pa.BinaryArray:
    """Keys of maps as `keys_to_labels` makes them: in each the metric's name, where there is one, is first."""
    offsets = labels.offsets.to_numpy().astype(np.int64)
    names = labels.keys.slice(offsets[0], offsets[-1] - offsets[0]).cast(pa.binary())
    values = labels.items.slice(offsets[0], offsets[-1] - offsets[0]).cast(pa.binary())
    offsets -= offsets[0]
    first, entries = offsets[:-1], np.diff(offsets)
    named = np.zeros(len(labels), np.bool_)
    filled = entries > 0
    named[filled] = pc.equal(names.take(pa.array(first[filled])), pa.scalar(NAME, pa.binary())).to_numpy(False)
    texts = pa.concat_arrays([names, values, pa.array([b""], pa.binary())])
    order, part_offsets = _parts_in_order(first, entries, named, len(names))
    parts = pa.ListArray.from_arrays(pa.array(part_offsets.astype(np.int32)), texts.take(pa.array(order)))
    return pc.binary_join(parts, pa.scalar(SEPARATOR, pa.binary()))


def _parts_in_order(first: Int64s, entries: Int64s, named: np.ndarray, total: int) -> tuple[Int64s, Int64s]:
    """Where the parts metric, name, value, …, "" of each key stand in names + values + [""]; and the keys' offsets."""
    pairs = entries - named
    counts = 2 + 2 * pairs
    ends = np.cumsum(counts)
    starts = ends - counts
    order = np.full(int(counts.sum()), 2 * total, np.int64)
    order[starts[named]] = total + first[named]
    entry = ranges(first + named, pairs)
    name_rows = np.repeat(starts + 1, pairs) + 2 * (entry - np.repeat(first + named, pairs))
    order[name_rows] = entry
    order[name_rows + 1] = total + entry
    return order, np.concatenate(([0], ends))
