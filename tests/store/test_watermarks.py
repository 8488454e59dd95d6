"""Watermarks: as a dictionary of the latest time of each series."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.model.arrays import UInt32s
from streamgauge.store.watermarks import NO_WATERMARK, Watermarks

ids = st.sampled_from([0, 1, 2, 3, 500, (1 << 32) - 2, (1 << 32) - 1])
times = st.integers(-(1 << 62), 1 << 62)


def array(values: list[int]) -> UInt32s:
    return np.array(values, np.uint32)


@given(st.lists(st.lists(st.tuples(ids, times), max_size=6), max_size=6), st.lists(ids), st.sets(ids))
def test_each_series_has_the_latest_time_it_was_given(
    blocks: list[list[tuple[int, int]]], asked: list[int], kept: set[int]
) -> None:
    marks, model = Watermarks(), dict[int, int]()
    for block in blocks:
        marks = marks.raised(array([series for series, _ in block]), np.array([time for _, time in block], np.int64))
        for series, time in block:
            model[series] = max(model.get(series, NO_WATERMARK), time)
    assert marks.ids.tolist() == sorted(model)
    assert marks.of(array(asked)).tolist() == [model.get(series, NO_WATERMARK) for series in asked]
    fewer = marks.only(array(sorted(kept)))
    assert dict(zip(fewer.ids.tolist(), fewer.latest.tolist(), strict=True)) == {
        series: time for series, time in model.items() if series in kept
    }
