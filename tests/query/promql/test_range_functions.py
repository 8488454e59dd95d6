"""Every range function against a plain reading of what Prometheus documents, one window at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import QueryFailed, QueryTimeout
from streamgauge.model.arrays import stale_marker
from streamgauge.model.source import Samples, empty_samples
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql import chunks
from streamgauge.query.promql.range_functions import INVALID_QUANTILE, RANGE_FUNCTIONS, Ranged, apply_range, drop_stale
from streamgauge.query.promql.steps import Grid
from streamgauge.testing.thorough import examples

Point = tuple[int, float]
Series = list[Point]


# --- the oracle -----------------------------------------------------------------------------------------------------


def divide(a: float, b: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.float64(a) / np.float64(b))


def add_compensated(x: float, total: float, lost: float) -> tuple[float, float]:
    after = total + x
    if math.isinf(after):
        return after, 0.0
    if abs(total) >= abs(x):
        return after, lost + ((total - after) + x)
    return after, lost + ((x - after) + total)


def extrapolated(window: Series, start: int, end: int, counter: bool, per_second: bool) -> float:
    change = window[-1][1] - window[0][1]
    if counter:
        change += sum((a for (_, a), (_, b) in itertools.pairwise(window) if b < a), 0.0)
    to_start, to_end = (window[0][0] - start) / 1000, (end - window[-1][0]) / 1000
    sampled = (window[-1][0] - window[0][0]) / 1000
    average = sampled / (len(window) - 1)
    if to_start >= average * 1.1:
        to_start = average / 2
    if counter and change > 0 and window[0][1] >= 0:
        to_start = min(to_start, sampled * divide(window[0][1], change))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    return change * (factor / ((end - start) / 1000) if per_second else factor)


def instant(window: Series, per_second: bool) -> float:
    (t0, a), (t1, b) = window[-2:]
    if not per_second:
        return b - a
    return (b if b < a else b - a) / ((t1 - t0) / 1000)


def regression(window: Series, at: int) -> tuple[float, float]:
    if any(not math.isfinite(y) for _, y in window):
        return math.nan, math.nan
    n = len(window)
    xs = [(t - at) / 1000 for t, _ in window]
    ys = [y for _, y in window]
    mean_x, mean_y = math.fsum(xs) / n, math.fsum(ys) / n
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope = covariance / math.fsum((x - mean_x) ** 2 for x in xs)
    return slope, mean_y - slope * mean_x


def smoothed(window: Series, smoothing: float, trend: float) -> float:
    previous, level, slope = 0.0, window[0][1], window[1][1] - window[0][1]
    for i in range(1, len(window)):
        if i > 1:
            slope = trend * (level - previous) + (1 - trend) * slope
        previous, level = level, smoothing * window[i][1] + (1 - smoothing) * (level + slope)
    return level


def total(window: Series) -> float:
    result = lost = 0.0
    for _, value in window:
        result, lost = add_compensated(value, result, lost)
    return result if math.isinf(result) else result + lost


def average(window: Series) -> float:
    result, lost, mean, incremental = window[0][1], 0.0, 0.0, False
    for count, (_, value) in enumerate(window[1:], start=2):
        if not incremental:
            after, after_lost = add_compensated(value, result, lost)
            if not math.isinf(after):
                result, lost = after, after_lost
                continue
            incremental, mean, lost = True, result / (count - 1), lost / (count - 1)
        kept = (count - 1) / count
        mean, lost = add_compensated(value / count, kept * mean, kept * lost)
    return mean + lost if incremental else result / len(window) + lost / len(window)


def variance(window: Series) -> float:
    count = mean = mean_lost = squares = squares_lost = 0.0
    for _, value in window:
        count += 1
        distance = value - (mean + mean_lost)
        mean, mean_lost = add_compensated(distance / count, mean, mean_lost)
        squares, squares_lost = add_compensated(distance * (value - (mean + mean_lost)), squares, squares_lost)
    return (squares + squares_lost) / count


def quantile(q: float, values: list[float]) -> float:
    if not 0 <= q <= 1:
        return math.nan if math.isnan(q) else math.copysign(math.inf, q)
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value if value == value else 0.0))
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(len(ordered) - 1, low + 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


def median_deviation(window: Series) -> float:
    values = [value for _, value in window]
    if any(map(math.isnan, values)):
        return math.nan
    median = quantile(0.5, values)
    return quantile(0.5, [abs(value - median) for value in values])


def best(window: Series, better: Callable[[float, float], bool]) -> Point:
    found = window[0]
    for point in window:
        if better(point[1], found[1]) or math.isnan(found[1]):
            found = point
    return found


def count_pairs(window: Series, counts: Callable[[float, float], bool]) -> float:
    return float(sum(counts(a, b) for (_, a), (_, b) in itertools.pairwise(window)))


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


NEEDS_TWO = {
    "rate", "increase", "delta", "irate", "idelta", "deriv", "predict_linear", "double_exponential_smoothing",
    "holt_winters",
}  # fmt: skip

ORACLE: dict[str, Callable[..., float]] = {
    "rate": lambda w, start, end: extrapolated(w, start, end, True, True),
    "increase": lambda w, start, end: extrapolated(w, start, end, True, False),
    "delta": lambda w, start, end: extrapolated(w, start, end, False, False),
    "irate": lambda w, *_: instant(w, True),
    "idelta": lambda w, *_: instant(w, False),
    "deriv": lambda w, *_: regression(w, w[0][0])[0],
    "predict_linear": lambda w, _, end, ahead: (lambda slope, at: slope * ahead + at)(*regression(w, end)),
    "double_exponential_smoothing": lambda w, _start, _end, smoothing, trend: smoothed(w, smoothing, trend),
    "holt_winters": lambda w, _start, _end, smoothing, trend: smoothed(w, smoothing, trend),
    "changes": lambda w, *_: count_pairs(w, lambda a, b: not same(a, b)),
    "resets": lambda w, *_: count_pairs(w, lambda a, b: b < a),
    "sum_over_time": lambda w, *_: total(w),
    "avg_over_time": lambda w, *_: average(w),
    "stdvar_over_time": lambda w, *_: variance(w),
    "stddev_over_time": lambda w, *_: math.sqrt(variance(w)),
    "min_over_time": lambda w, *_: best(w, lambda a, b: a < b)[1],
    "max_over_time": lambda w, *_: best(w, lambda a, b: a > b)[1],
    "ts_of_min_over_time": lambda w, *_: best(w, lambda a, b: a <= b)[0] / 1000,
    "ts_of_max_over_time": lambda w, *_: best(w, lambda a, b: a >= b)[0] / 1000,
    "ts_of_first_over_time": lambda w, *_: w[0][0] / 1000,
    "ts_of_last_over_time": lambda w, *_: w[-1][0] / 1000,
    "first_over_time": lambda w, *_: w[0][1],
    "last_over_time": lambda w, *_: w[-1][1],
    "count_over_time": lambda w, *_: float(len(w)),
    "present_over_time": lambda w, *_: 1.0,
    "quantile_over_time": lambda w, _start, _end, q: quantile(q, [value for _, value in w]),
    "mad_over_time": lambda w, *_: median_deviation(w),
}

ARGUMENTS = {
    "predict_linear": (90.5,),
    "double_exponential_smoothing": (0.3, 0.6),
    "holt_winters": (0.5, 0.1),
    "quantile_over_time": (0.3,),
}


# --- comparing ------------------------------------------------------------------------------------------------------


def samples_of(series: list[Series]) -> Samples:
    points = [point for each in series for point in each]
    return Samples(
        np.cumsum([0, *map(len, series)]),
        np.array([time for time, _ in points], np.int64),
        np.array([value for _, value in points], np.float64),
    )


def steps_args(arguments: tuple[float, ...], count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return [np.full(count, argument) for argument in arguments]


def apply(name: str, series: list[Series], grid: Grid, range_ms: int, *arguments: float) -> Ranged:
    budget = Budget(Limits())
    return apply_range(name, samples_of(series), grid, range_ms, steps_args(arguments, grid.count), budget)


def assert_agrees(name: str, series: list[Series], grid: Grid, range_ms: int) -> None:
    arguments = ARGUMENTS.get(name, ())
    steps = apply(name, series, grid, range_ms, *arguments).steps
    assert steps.values.shape == steps.present.shape == (len(series), grid.count)
    for row, points in enumerate(series):
        for step, end in enumerate(grid.times().tolist()):
            window = [point for point in points if end - range_ms < point[0] <= end]
            where = f"{name} of {window} in ({end - range_ms}, {end}]"
            assert steps.present[row, step] == (len(window) >= (2 if name in NEEDS_TWO else 1)), where
            if not steps.present[row, step]:
                continue
            expected = ORACLE[name](window, end - range_ms, end, *arguments)
            got = float(steps.values[row, step])
            scale = max((abs(value) for _, value in window if math.isfinite(value)), default=0.0)
            if name == "stdvar_over_time":
                scale *= scale
            close = same(got, expected) or math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12 * scale)
            assert close, f"{where}: {got} instead of {expected}"


@pytest.fixture(params=["shared", "ragged", "as it comes"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Forces all series into one of the layouts, with chunks so small that they divide groups."""
    smallest = {"shared": 0, "ragged": 1 << 60, "as it comes": 30}[request.param]
    monkeypatch.setattr(chunks, "SMALLEST_GROUP", smallest)
    monkeypatch.setattr(chunks, "CHUNK", 40)
    monkeypatch.setattr(chunks, "PARALLEL", 0 if request.param == "ragged" else 1 << 30)
    return request.param


ordinary = st.one_of(
    st.integers(0, 20).map(float),
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1e15 + 0.25, 3e-9]),
)
special = st.sampled_from([math.nan, math.inf, -math.inf])
values = st.one_of(ordinary, ordinary, ordinary, ordinary, special)


@st.composite
def series_lists(draw: st.DrawFn) -> list[Series]:
    """Series of which some have the same times, scraped every 10 s with gaps and jitter, some a counter with resets."""
    vectors = draw(
        st.lists(
            st.one_of(
                st.builds(
                    lambda phase, kept: [phase + 10_000 * i for i in kept],
                    st.integers(0, 12_000),
                    st.sets(st.integers(0, 14), max_size=15).map(sorted),
                ),
                st.sets(st.integers(-5_000, 150_000), max_size=12).map(sorted),
            ),
            min_size=1,
            max_size=3,
        )
    )
    result = []
    for vector in draw(st.lists(st.sampled_from(vectors), min_size=1, max_size=6)):
        if draw(st.booleans()):
            steps = draw(st.lists(st.integers(-3, 12), min_size=len(vector), max_size=len(vector)))
            level, counter = 0.0, []
            for step in steps:
                level = 1.0 if step < 0 else level + step
                counter.append(level)
            result.append(list(zip(vector, counter, strict=True)))
        else:
            drawn = draw(st.lists(values, min_size=len(vector), max_size=len(vector)))
            result.append(list(zip(vector, drawn, strict=True)))
    return result


grids = st.one_of(
    st.builds(
        Grid, st.integers(-20_000, 60_000), st.sampled_from([1, 7_000, 10_000, 15_000, 200_000]), st.integers(1, 9)
    ),
    st.integers(-10_000, 160_000).map(Grid.instant),
    st.builds(Grid, st.integers(0, 150_000), st.just(0), st.integers(2, 3)),
)
ranges = st.sampled_from([1, 5_000, 10_000, 20_000, 30_000, 47_000, 300_000])


@pytest.mark.parametrize("name", sorted(RANGE_FUNCTIONS))
def test_agrees_with_the_definition(name: str, layout: str) -> None:
    @settings(max_examples=examples(15), deadline=None)
    @given(series_lists(), grids, ranges)
    def check(series: list[Series], grid: Grid, range_ms: int) -> None:
        assert_agrees(name, series, grid, range_ms)

    check()


def test_every_function_has_a_definition() -> None:
    assert set(ORACLE) == RANGE_FUNCTIONS


# --- what random samples do not reach --------------------------------------------------------------------------------


def at_once(name: str, numbers: list[float], *arguments: float) -> float:
    """The function over one window that holds the numbers, 10 s apart, and nothing else."""
    series = [(10_000 * i, number) for i, number in enumerate(numbers)]
    end = series[-1][0]
    steps = apply(name, [series], Grid.instant(end), end + 5_000, *arguments).steps
    assert steps.present.all()
    return float(steps.values[0, 0])


@pytest.mark.parametrize("name", sorted(RANGE_FUNCTIONS))
def test_windows_of_thousands_of_samples(name: str, layout: str) -> None:
    generator = np.random.default_rng(7)
    steps = generator.integers(-3, 30, 2_000)
    counter = np.where(steps < 0, 5, np.cumsum(np.abs(steps))).astype(float).tolist()
    gauge = generator.normal(1e9, 3, 1_500).tolist()
    series = [list(zip(range(0, 30_000_000, 15_000), numbers, strict=False)) for numbers in (counter, gauge, counter)]
    assert_agrees(name, series, Grid(29_000_000, 600_000, 2), 28_000_000)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.sampled_from([1.7e308, -1.7e308, 1e308, -1e308, 1.0, 1e-300, math.inf, math.nan]), min_size=1))
def test_sums_and_averages_near_the_largest_number(numbers: list[float]) -> None:
    series = [(10_000 * i, number) for i, number in enumerate(numbers)]
    for name in ("sum_over_time", "avg_over_time"):
        assert_agrees(name, [series], Grid(0, 10_000, len(numbers)), 40_000)


def test_deviation_near_the_largest_number() -> None:
    assert at_once("stddev_over_time", [1.5e308, 1.5e308, 1.5e308]) == 0
    assert at_once("stdvar_over_time", [1e200, 1e200 * (1 + 1e-15)]) == math.inf
    assert at_once("stdvar_over_time", [1e150, 2e150, 3e150]) == pytest.approx(2 / 3 * 1e300)


def test_sums_do_not_lose_small_numbers_beside_large_ones() -> None:
    assert at_once("sum_over_time", [1.0, 1e100, 1.0, -1e100]) == 2
    assert at_once("avg_over_time", [1.0, 1e100, 1.0, -1e100]) == 0.5
    assert at_once("sum_over_time", [0.1] * 10) == 1


def test_a_sum_that_overflows_stays_infinite_and_its_average_does_not() -> None:
    numbers = [1e308, -1e307, 1e308, -1e308]
    assert at_once("sum_over_time", numbers) == math.inf
    assert at_once("avg_over_time", numbers) == pytest.approx(9e307 / 4)


def test_deviations_are_exact_far_from_zero() -> None:
    assert at_once("stdvar_over_time", [1e15 + i % 3 for i in range(12)]) == pytest.approx(2 / 3, rel=1e-12)
    assert at_once("stdvar_over_time", [1.5990505637277868] * 13) == 0
    assert at_once("deriv", [1e15 + i for i in range(13)]) == pytest.approx(0.1, rel=1e-12)


def test_a_constant_has_no_slope() -> None:
    assert at_once("deriv", [0.3] * 7) == 0
    assert at_once("predict_linear", [0.3] * 7, 1e9) == 0.3
    assert math.isnan(at_once("deriv", [math.inf] * 3))


def test_a_huge_value_before_a_reset_does_not_spoil_later_windows() -> None:
    numbers = [1e300, 1.0, 3.0, 6.0, 10.0, 1.0, 2.0]
    series = [(10_000 * i, number) for i, number in enumerate(numbers)]
    assert_agrees("increase", [series, series], Grid(30_000, 10_000, 4), 30_000)


def test_an_increase_is_not_extended_below_zero() -> None:
    series = [[(10_000 * i, 1.0 + 10 * i) for i in range(1, 6)]]
    # From 11 to 51 in 40 s; the 9 s before the first sample would reach 2, the 20 s that are asked for would not.
    assert apply("increase", series, Grid.instant(50_000), 49_000).steps.values[0, 0] == pytest.approx(49)
    assert apply("increase", series, Grid.instant(50_000), 61_000).steps.values[0, 0] == pytest.approx(45)
    starting = [[(10_000 * i, 2.0 + 10 * (i - 1)) for i in range(1, 6)]]
    assert apply("increase", starting, Grid.instant(50_000), 50_000).steps.values[0, 0] == pytest.approx(42)


@pytest.mark.parametrize(("q", "expected"), [(-0.1, -math.inf), (1.1, math.inf), (math.nan, math.nan)])
def test_a_quantile_that_is_none_is_noted(q: float, expected: float) -> None:
    ranged = apply("quantile_over_time", [[(0, 1.0)], []], Grid(0, 1_000, 2), 5_000, q)
    assert ranged.notes == {INVALID_QUANTILE}
    np.testing.assert_equal(ranged.steps.values[0], [expected, expected])
    assert not apply("quantile_over_time", [[(0, 1.0)]], Grid.instant(9_000), 5_000, q).notes
    assert not apply("quantile_over_time", [[(0, 1.0)]], Grid.instant(0), 5_000, 0.5).notes


@pytest.mark.parametrize("name", ["double_exponential_smoothing", "holt_winters"])
@pytest.mark.parametrize("factors", [(0.0, 0.5), (1.0, 0.5), (0.5, -0.1), (0.5, 2.0)])
def test_smoothing_refuses_factors_out_of_range(name: str, factors: tuple[float, float]) -> None:
    with pytest.raises(QueryFailed, match="between 0 and 1"):
        apply(name, [[(0, 1.0), (1_000, 2.0)]], Grid.instant(1_000), 5_000, *factors)
    assert not apply(name, [[]], Grid.instant(1_000), 5_000, *factors).steps.present.any()


def test_a_prediction_starts_from_the_evaluation_time() -> None:
    samples = samples_of([[(0, 0.0), (10_000, 10.0)]])
    grid, evaluated = Grid(10_000, 10_000, 2), Grid(70_000, 10_000, 2)
    ranged = apply_range("predict_linear", samples, grid, 20_000, [np.full(2, 5.0)], Budget(Limits()), evaluated)
    np.testing.assert_allclose(ranged.steps.values[0, :1], 75.0)


def test_series_that_differ_where_nothing_was_probed_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SMALLEST_GROUP", 0)
    times = [1_000 * i for i in range(100)]
    delayed = [time + (time == 3_000) * 900 for time in times]
    numbers = [float(i * i) for i in range(100)]
    series = [list(zip(used, numbers, strict=True)) for used in (times, delayed, times, delayed, times)]
    assert_agrees("delta", series, Grid(2_500, 500, 8), 2_000)


def test_stale_markers_are_dropped_and_other_nan_kept() -> None:
    samples = samples_of([[(0, 1.0), (1, 2.0), (2, math.nan)], [(0, 3.0)], [(5, 4.0)]])
    samples.values[[1, 3]] = stale_marker()
    kept = drop_stale(samples)
    assert kept.offsets.tolist() == [0, 2, 2, 3]
    assert kept.times.tolist() == [0, 2, 5]
    np.testing.assert_equal(kept.values, [1.0, math.nan, 4.0])
    assert drop_stale(kept) is kept


def test_no_series_and_series_without_samples() -> None:
    budget = Budget(Limits())
    grid = Grid(0, 1_000, 3)
    assert apply_range("rate", empty_samples(), grid, 5_000, [], budget).steps.values.shape == (0, 3)
    assert not apply("rate", [[], []], grid, 5_000).steps.present.any()


def test_the_budget_is_charged_for_the_result_alone_when_done() -> None:
    budget = Budget(Limits())
    apply_range("rate", samples_of([[(0, 1.0), (1, 2.0)]] * 7), Grid(0, 1, 5), 10, [], budget)
    assert (budget.samples, budget.bytes) == (35, 35 * 9)


def test_a_result_over_the_limit_is_refused_before_it_is_computed() -> None:
    with pytest.raises(QueryFailed, match="more than 10 samples"):
        apply_range("rate", samples_of([[(0, 1.0)]] * 3), Grid(0, 1, 5), 10, [], Budget(Limits(samples=10)))


@pytest.mark.parametrize("parallel", [0, 1 << 60])
def test_evaluation_stops_when_time_is_up(parallel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "PARALLEL", parallel)
    ticks = itertools.count()
    budget = Budget(Limits(seconds=20), monotonic=lambda: float(next(ticks)))
    with pytest.raises(QueryTimeout):
        apply_range("rate", samples_of([[(0, 1.0), (1, 2.0)]] * 100), Grid(0, 1, 4), 10, [], budget)
