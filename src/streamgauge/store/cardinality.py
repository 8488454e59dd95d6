"""Which labels make the index large: what an operator looks at before dropping one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from streamgauge.model.arrays import Int64s
from streamgauge.model.frame import LabelColumn
from streamgauge.store import arrow
from streamgauge.store.index_view import IndexView


@dataclass(frozen=True, slots=True)
class Cardinality:
    """Counts over living series; each list holds the largest, in descending order, then by name."""

    series: int
    label_pairs: int  # distinct pairs of name and value
    metrics: list[tuple[str, int]]  # series of each metric
    values: list[tuple[str, int]]  # distinct values of each label
    bytes: list[tuple[str, int]]  # length of each label's value, summed over all series
    pairs: list[tuple[str, int]]  # series of each "name=value"


def cardinality(view: IndexView, limit: int) -> Cardinality:
    """The `limit` largest of each kind. Takes about 10 ms a label at a million series."""
    rows = view.match([])
    metrics: list[tuple[str, int]] = []
    values: list[tuple[str, int]] = []
    sizes: list[tuple[str, int]] = []
    pairs: list[tuple[str, int]] = []
    for name in view.label_names:
        column = view.frame(rows, [name]).columns.get(name)
        if column is None:
            continue
        counts = np.bincount(column.codes + 1, minlength=len(column.values) + 1)[1:]
        bounds, _ = arrow.bounds_and_data(column.values)
        values.append((name, int(np.count_nonzero(counts))))
        sizes.append((name, int((counts * np.diff(bounds)).sum())))
        top = _top_values(column, counts, limit)
        pairs += [(f"{name}={value}", count) for value, count in top]
        if name == "__name__":
            metrics = top
    return Cardinality(
        len(rows),
        sum(count for _, count in values),
        metrics,
        _top(values, limit),
        _top(sizes, limit),
        _top(pairs, limit),
    )


def _top_values(column: LabelColumn, counts: Int64s, limit: int) -> list[tuple[str, int]]:
    used = np.flatnonzero(counts)
    if len(used) > limit:  # ties with the last are kept, for the names to decide
        used = used[counts[used] >= -np.partition(-counts[used], limit - 1)[limit - 1]]
    texts = cast("list[str]", [column.values[code].as_py() for code in used.tolist()])
    return _top(list(zip(texts, counts[used].tolist(), strict=True)), limit)


def _top(counted: list[tuple[str, int]], limit: int) -> list[tuple[str, int]]:
    return sorted(counted, key=lambda item: (-item[1], item[0]))[:limit]
