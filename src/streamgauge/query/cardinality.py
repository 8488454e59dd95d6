"""Which metrics, labels and values have how many series: the data of Prometheus' /api/v1/status/tsdb."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Int64s
from streamgauge.model.frame import LabelFrame
from streamgauge.query.labels import METRIC_NAME

Count = tuple[str, int]


def cardinality(frame: LabelFrame, limit: int) -> dict[str, object]:
    """The `limit` largest of each kind, the largest first. Memory is the bytes of a label's values, once a series."""
    metrics: list[Count] = []
    values: list[Count] = []
    sizes: list[Count] = []
    pairs: list[Count] = []
    pair_count = 0
    for name, column in frame.columns.items():
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
        used = int(np.count_nonzero(counts))
        if used == 0:
            continue
        pair_count += used
        values.append((name, used))
        lengths = pc.cast(pc.binary_length(column.values), pa.int64()).to_numpy()
        sizes.append((name, int(lengths @ counts)))
        largest = _largest_codes(column.values, counts, limit)
        pairs += ((f"{name}={value}", count) for value, count in largest)
        if name == METRIC_NAME:
            metrics = largest
    return {
        "headStats": {"numSeries": len(frame), "numLabelPairs": pair_count},
        "seriesCountByMetricName": _listed(metrics, limit),
        "labelValueCountByLabelName": _listed(values, limit),
        "memoryInBytesByLabelName": _listed(sizes, limit),
        "seriesCountByLabelValuePair": _listed(pairs, limit),
    }


def _largest_codes(values: pa.StringArray, counts: Int64s, limit: int) -> list[Count]:
    order = np.argsort(-counts, kind="stable")[:limit]
    order = order[counts[order] > 0]
    return [(str(value), count) for value, count in zip(values.take(order), counts[order].tolist(), strict=True)]


def _listed(counts: Iterable[Count], limit: int) -> list[dict[str, object]]:
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))[:limit]
    return [{"name": name, "value": value} for name, value in ordered]
