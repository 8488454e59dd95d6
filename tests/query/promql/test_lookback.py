"""Which sample an instant selector picks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.source import Samples, empty_samples
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql import chunks
from streamgauge.query.promql.lookback import lookback
from streamgauge.query.promql.steps import Grid
from streamgauge.testing.thorough import examples

STALE = "stale"
Series = list[tuple[int, float | str]]


def samples_of(series: list[Series]) -> Samples:
    points = [point for each in series for point in each]
    values = np.array([0.0 if value == STALE else value for _, value in points], np.float64)
    values.view(np.int64)[[value == STALE for _, value in points]] = STALE_BITS
    return Samples(np.cumsum([0, *map(len, series)]), np.array([time for time, _ in points], np.int64), values)


def looked_up(series: Series, end: int, lookback_ms: int) -> tuple[int, float] | None:
    window = [point for point in series if end - lookback_ms < point[0] <= end]
    if not window or window[-1][1] == STALE:
        return None
    return window[-1][0], float(window[-1][1])


@pytest.mark.parametrize("smallest", [0, 20, 1 << 60])
def test_picks_the_latest_sample_that_is_not_too_old(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SMALLEST_GROUP", smallest)
    monkeypatch.setattr(chunks, "CHUNK", 16)
    value = st.one_of(st.integers(0, 9).map(float), st.just(STALE), st.just(math.nan))
    vectors = st.sets(st.integers(-5, 60), max_size=12).map(sorted)

    @settings(max_examples=examples(100), deadline=None)
    @given(
        st.lists(vectors, min_size=1, max_size=3).flatmap(lambda kinds: st.lists(st.sampled_from(kinds), min_size=1)),
        st.data(),
        st.builds(Grid, st.integers(-10, 60), st.sampled_from([1, 4, 15]), st.integers(1, 8)),
        st.sampled_from([1, 4, 5, 30]),
    )
    def check(kinds: list[list[int]], data: st.DataObject, grid: Grid, lookback_ms: int) -> None:
        series: list[Series] = [[(time, data.draw(value)) for time in kind] for kind in kinds]
        looked = lookback(samples_of(series), grid, lookback_ms)
        for row, each in enumerate(series):
            for step, end in enumerate(grid.times().tolist()):
                expected = looked_up(each, end, lookback_ms)
                assert looked.steps.present[row, step] == (expected is not None)
                if expected is not None:
                    assert looked.times[row, step] == expected[0]
                    np.testing.assert_equal(looked.steps.values[row, step], expected[1])

    check()


def test_a_sample_exactly_as_old_as_the_lookback_is_too_old() -> None:
    looked = lookback(samples_of([[(0, 1.0)]]), Grid(0, 1, 301), 300)
    assert looked.steps.present[0].tolist() == [True] * 300 + [False]


def test_no_series() -> None:
    assert lookback(empty_samples(), Grid(0, 1, 4), 300).steps.values.shape == (0, 4)


def test_the_budget_is_charged_for_what_is_needed_meanwhile() -> None:
    budget = Budget(Limits())
    lookback(samples_of([[(0, 1.0)]] * 4), Grid(0, 1, 5), 300, budget)
    assert (budget.samples, budget.bytes) == (0, 0)
    with pytest.raises(QueryFailed, match="bytes"):
        lookback(samples_of([[(0, 1.0)]]), Grid(0, 1, 1), 300, Budget(Limits(bytes=10)))
