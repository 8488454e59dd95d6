"""Canonical keys to the label maps of a series file and back, whole columns at a time."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.labels import NAME, SEPARATOR
from streamgauge.store.ranges import ranges

Labels: TypeAlias = "pa.MapArray[Any, Any]"


def keys_to_labels(keys: pa.BinaryArray) -> Labels:
    """map<string, string> of each key: the metric name first, under `__name__`, then the others in order of the key.

    Raises pa.ArrowInvalid for text that is not UTF-8.
    """
    separator: Any = SEPARATOR  # the stubs know text only
    split: Any = pc.call_function("split_pattern", [keys], pc.SplitPatternOptions(separator))
    parts: Any
    parts, offsets = _flat(split.values, split.offsets)  # metric, name, value, …, "" of each key
    first = offsets[:-1]
    pairs = (np.diff(offsets) - 2) // 2
    named = pc.binary_length(parts.take(first)).to_numpy() > 0
    entries = pairs + named
    ends = np.cumsum(entries)
    starts = ends - entries
    # Where the texts of each entry stand among `parts`; the metric's name is appended behind them.
    name_at = np.empty(int(entries.sum()), np.int64)
    value_at = np.empty_like(name_at)
    name_at[starts[named]] = len(parts)
    value_at[starts[named]] = first[named]
    pair_rows = ranges(starts + named, pairs)
    within = pair_rows - np.repeat(starts + named, pairs)
    name_at[pair_rows] = np.repeat(first, pairs) + 1 + 2 * within
    value_at[pair_rows] = name_at[pair_rows] + 1
    texts = pa.concat_arrays([parts, pa.array([NAME], parts.type)]).cast(pa.string())
    labels: Labels = pa.MapArray.from_arrays(_offsets(ends), texts.take(name_at), texts.take(value_at))
    return labels


def labels_to_keys(labels: Labels) -> pa.BinaryArray:
    """Keys of maps as `keys_to_labels` makes them: in each the metric's name, where there is one, is first."""
    names, offsets = _flat(labels.keys.cast(pa.binary()), labels.offsets)
    values, _ = _flat(labels.items.cast(pa.binary()), labels.offsets)
    first = offsets[:-1]
    named = pc.equal(names.take(first), pa.scalar(NAME, pa.binary())).to_numpy(False)
    order, ends = _parts_in_order(first, np.diff(offsets), named, len(names))
    texts = pa.concat_arrays([names, values, pa.array([b""], pa.binary())])
    parts: Any = pa.ListArray.from_arrays(_offsets(ends), texts.take(order))
    keys: Any = pc.binary_join(parts, pa.scalar(SEPARATOR, pa.binary()))
    return keys  # type: ignore[no-any-return]


def _parts_in_order(first: Int64s, entries: Int64s, named: Bools, total: int) -> tuple[Int64s, Int64s]:
    """Where the parts metric, name, value, …, "" of each key stand in names + values + [""], and where each key's end.

    `total` is the number of names.
    """
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
    return order, ends


def _flat(values: pa.Array[Any], offsets: pa.Array[Any]) -> tuple[pa.Array[Any], Int64s]:
    """The values that a list array, which may be a slice, really has, and offsets that start at 0."""
    edges = offsets.to_numpy().astype(np.int64)
    return values.slice(int(edges[0]), int(edges[-1] - edges[0])), edges - edges[0]


def _offsets(ends: Int64s) -> Any:
    return pa.array(np.concatenate((np.zeros(1, np.int64), ends)).astype(np.int32))
