"""count_values: how many series of a group have each value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from streamgauge.errors import QueryFailed
from streamgauge.model.frame import LabelColumn, number_keys
from streamgauge.query.promql.frames import METRIC_NAME, encode, no_column, with_columns
from streamgauge.query.promql.numbers import plain_format
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, no_names


def count_values(vector: InstantVector, label: str, grouping: Iterable[str], without: bool) -> InstantVector:
    """For each group and value a series that has the value as text in `label`, and counts it.

    Raises QueryFailed when `label` cannot be the name of a label.
    """
    if not label:
        raise QueryFailed('invalid label name ""')
    steps = vector.steps
    grouping = set(grouping)
    base = vector.labels.without({*grouping, label, METRIC_NAME}) if without else vector.labels.only(grouping - {label})
    rows, columns = np.nonzero(steps.present)
    # Bits, not numbers: 0 and -0 are shown differently; all NaN become the same text below.
    encoded = pa.array(np.ascontiguousarray(steps.values[rows, columns]).view(np.int64)).dictionary_encode()
    distinct = np.asarray(encoded.dictionary.to_numpy(), np.int64).view(np.float64)
    texts = encode(pa.array([plain_format(value) for value in distinct.tolist()], pa.string()))
    shown = texts.codes[encoded.indices.to_numpy().astype(np.int64)] if len(rows) else np.empty(0, np.int32)
    if without and label in grouping:
        texts, shown = no_column(0), np.zeros_like(shown)
    base_group, base_first = base.group()
    width = max(len(texts.values), 1)
    keys = base_group[rows] * width + shown
    group, first = number_keys(keys, len(base_first) * width)
    keys = keys[first]
    labels = base.take(base_first[keys // width])
    if len(texts.values):
        labels = with_columns(labels, {label: LabelColumn((keys % width).astype(np.int32), texts.values)})
    shape = (len(keys), steps.present.shape[1])
    counts = np.bincount(group * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)
    nameless = no_names(len(keys))
    if METRIC_NAME in base.columns:
        nameless = np.bincount(group, vector.nameless[rows], len(keys)) > 0
    return InstantVector(labels, Steps(counts.astype(np.float64), counts > 0), nameless)
