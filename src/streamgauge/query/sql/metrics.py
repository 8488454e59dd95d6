"""The views of series and samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int64s, stale_mask
from streamgauge.model.frame import LabelColumn, LabelFrame
from streamgauge.model.source import Samples, Source
from streamgauge.query.budget import Budget
from streamgauge.query.sql.database import Session
from streamgauge.query.sql.ranges import SampleRange
from streamgauge.query.sql.relations import View
from streamgauge.query.text import strings

NAME = "__name__"
_SQL = {
    "series_id": "(hash(name, labels) >> 1)::BIGINT",
    "name": "name",
    "labels": "labels",
    "time": "time",
    "value": "value",
}
_ROW_BYTES = 20
"""Of a sample: its series' number, its time and its value."""


class MetricViews:
    def __init__(self, session: Session, source: Source, budget: Budget) -> None:
        self._session = session
        self._source = source
        self._budget = budget

    def make(self, view: View, wanted: SampleRange) -> None:
        """Put a view into the database. What it reads is charged to the budget."""
        series, samples = f"{view.name}_series", f"{view.name}_samples"
        shown = (
            ", ".join(f"{_SQL[name]} AS {name}" for name in view.columns if name in view.needed) or "NULL AS nothing"
        )
        if view.kind == "series":
            self._add(
                series, series_table(self._source.series([wanted.matchers], wanted.start, wanted.end, self._budget))
            )
            self._session.add_view(view.name, f"SELECT {shown} FROM {series}")
            return
        found = self._source.select(wanted.matchers, wanted.start, wanted.end, self._budget)
        self._budget.charge(0, _ROW_BYTES * len(found.samples.times))
        self._add(samples, _samples_table(found.samples))
        if view.needed <= {"time", "value"}:
            self._session.add_view(view.name, f"SELECT {shown} FROM {samples}")
            return
        self._add(series, series_table(found.labels))
        self._session.add_view(view.name, f"SELECT {shown} FROM {samples} JOIN {series} USING (row)")

    def _add(self, name: str, table: pa.Table) -> None:
        self._session.add_rows(name, table.schema, lambda: self._batches(table))

    def _batches(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        for batch in table.to_batches(max_chunksize=1 << 16):
            self._budget.check()
            yield batch


def series_table(frame: LabelFrame) -> pa.Table:
    """Series with the columns row int32, name and labels, without the name in these."""
    name = frame.columns.get(NAME)
    names = pa.nulls(len(frame), pa.string()) if name is None else _texts(name)
    rows = pa.array(np.arange(len(frame), dtype=np.int32))
    return pa.table({"row": rows, "name": names, "labels": label_maps(frame.without([NAME]))})


def label_maps(frame: LabelFrame) -> pa.MapArray[Any, Any]:
    """The labels of each row as a map, ordered by name."""
    names = sorted(frame.columns)
    present = np.zeros((len(frame), len(names)), np.bool_)
    codes = np.empty((len(frame), len(names)), np.int64)
    dictionaries = [frame.columns[name].values for name in names]
    starts = np.cumsum([0, *map(len, dictionaries)])
    for number, name in enumerate(names):
        present[:, number] = frame.columns[name].codes >= 0
        codes[:, number] = frame.columns[name].codes + starts[number]
    rows, columns = np.nonzero(present)
    offsets = np.concatenate(([0], np.cumsum(present.sum(axis=1))))
    keys = strings(names).take(columns)
    values = pa.concat_arrays([strings(()), *dictionaries]).take(codes[rows, columns])
    maps: Any = pa.MapArray
    labels: pa.MapArray[Any, Any] = maps.from_arrays(pa.array(offsets, pa.int32()), keys, values)
    return labels


def _samples_table(samples: Samples) -> pa.Table:
    """Samples but for stale markers, with the columns row int32, time and value."""
    rows = np.repeat(np.arange(len(samples), dtype=np.int32), np.diff(samples.offsets))
    stale = stale_mask(samples.values)
    times, values = samples.times, samples.values
    if stale.any():
        rows, times, values = rows[~stale], times[~stale], values[~stale]
    return pa.table({"row": rows, "time": as_times(times), "value": values})


def as_times(times: Int64s) -> pa.Array[Any]:
    """Times in ms as what SQL has for them."""
    return pa.array(times).cast(pa.timestamp("ms", "UTC"))


def _texts(column: LabelColumn) -> pa.StringArray:
    codes: Any = pa.array(column.codes, mask=column.codes < 0)
    return column.values.take(codes)
