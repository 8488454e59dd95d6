"""Classic histograms against a plain reading of their definition, one histogram and step at a time."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.model.frame import LabelFrame
from streamgauge.query.promql import histogram
from streamgauge.query.promql.histogram import (
    BAD_BUCKET_LABEL,
    FORCED_MONOTONICITY,
    HistogramResult,
    Repair,
    histogram_fraction,
    histogram_quantile,
    parse_bound,
)
from streamgauge.query.promql.range_functions import INVALID_QUANTILE
from streamgauge.query.promql.steps import Steps
from streamgauge.testing.thorough import examples

Buckets = list[tuple[float, float]]  # bound and count, ascending


def nearly_equal(a: float, b: float) -> bool:
    if a == b:
        return True
    if a == 0 or b == 0:
        return abs(a - b) < 1e-12 * np.finfo(float).smallest_normal
    return abs(a - b) / (abs(a) + abs(b)) < 1e-12


def made_monotonic(buckets: Buckets) -> tuple[Buckets, bool]:
    forced = False
    result = [buckets[0]]
    for bound, count in buckets[1:]:
        before = result[-1][1]
        if nearly_equal(before, count):
            count = before
        elif count < before:
            count, forced = before, True
        result.append((bound, count))
    return result, forced


def quantile(q: float, buckets: Buckets) -> tuple[float, bool]:
    if not 0 <= q <= 1:
        return (math.nan if math.isnan(q) else math.copysign(math.inf, q)), False
    if buckets[-1][0] != math.inf:
        return math.nan, False
    buckets, forced = made_monotonic(buckets)
    total = buckets[-1][1]
    if len(buckets) < 2 or total == 0:
        return math.nan, forced
    rank = q * total
    at = next(i for i, (bound, count) in enumerate(buckets) if count >= rank or bound == math.inf)
    bound, count = buckets[at]
    if bound == math.inf:
        return buckets[-2][0], forced
    if at == 0 and bound <= 0:
        return bound, forced
    start, below = buckets[at - 1] if at else (0.0, 0.0)
    with np.errstate(all="ignore"):
        inside = np.float64(rank - below) / np.float64(count - below)
    return float(start + (bound - start) * inside), forced


def count_below(value: float, buckets: Buckets) -> float:
    """How many observations lie below a value, as far as buckets tell."""
    below, start = 0.0, -math.inf if buckets[0][0] <= 0 else 0.0
    for bound, count in buckets:
        if start >= value:
            return below
        if bound > value:
            return count if start == -math.inf else below + (count - below) * (value - start) / (bound - start)
        below, start = count, bound
    return below


def fraction(lower: float, upper: float, buckets: Buckets) -> float:
    total = buckets[-1][1]
    if buckets[-1][0] != math.inf or total == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    return (min(count_below(upper, buckets), total) - min(count_below(lower, buckets), total)) / total


BOUNDS = ["-2.5", "-1", "0", "0.1", "0.10", "1", "1e0", "10", "+Inf", "Inf", "oops", ""]
counts = st.one_of(st.integers(0, 12).map(float), st.floats(0, 1e3), st.just(None))


@st.composite
def bucket_series(draw: st.DrawFn) -> tuple[list[dict[str, str]], Steps]:
    """Buckets of a few histograms over three steps. Some are missing here or there, some count too little."""
    keys = draw(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(BOUNDS)), min_size=1, max_size=16, unique=True)
    )
    labels = [{"__name__": "m_bucket", "pod": pod, "le": le} for pod, le in keys]
    rising = draw(st.booleans())
    table = []
    for _, le in keys:
        row = draw(st.lists(counts, min_size=3, max_size=3))
        level = 20.0 * sorted(BOUNDS, key=lambda text: parse_bound(text) or 0.0).index(le)
        table.append([count if count is None or not rising else count + level for count in row])
    values = np.array([[0.0 if count is None else count for count in row] for row in table])
    return labels, Steps(values, np.array([[count is not None for count in row] for row in table]))


def histograms_at(labels: list[dict[str, str]], steps: Steps, step: int) -> dict[str, Buckets]:
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for row, each in enumerate(labels):
        bound = parse_bound(each["le"])
        if bound is not None and steps.present[row, step]:
            buckets = found[each["pod"]]
            buckets[bound] = buckets.get(bound, 0.0) + float(steps.values[row, step])
    return {pod: sorted(buckets.items()) for pod, buckets in found.items()}


def answers(result: HistogramResult, step: int) -> dict[str, float]:
    rows = np.flatnonzero(result.steps.present[:, step]).tolist()
    return {result.labels.labels(row)["pod"]: float(result.steps.values[row, step]) for row in rows}


def assert_same(got: dict[str, float], expected: dict[str, float]) -> None:
    assert got.keys() == expected.keys()
    for pod, value in expected.items():
        np.testing.assert_allclose(got[pod], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cells", [1, 1 << 20])
def test_quantiles_agree_with_the_definition(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram, "_CELLS", cells)
    levels = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, -0.1, 1.1, math.nan]))

    @settings(max_examples=examples(150), deadline=None)
    @given(bucket_series(), st.lists(levels, min_size=3, max_size=3))
    def check(drawn: tuple[list[dict[str, str]], Steps], q: list[float]) -> None:
        labels, steps = drawn
        result = histogram_quantile(LabelFrame.of(labels), steps, np.array(q))
        forced = invalid = False
        for step, level in enumerate(q):
            expected = {pod: quantile(level, buckets) for pod, buckets in histograms_at(labels, steps, step).items()}
            assert_same(answers(result, step), {pod: value for pod, (value, _) in expected.items()})
            forced |= any(repaired for _, repaired in expected.values())
            invalid |= bool(expected) and not 0 <= level <= 1
        bad = {(each["__name__"], each["le"]) for each, seen in zip(labels, steps.present, strict=True) if seen.any()}
        bad = {(name, le) for name, le in bad if parse_bound(le) is None}
        assert result.bad_buckets == tuple(sorted(bad))
        assert (result.repair is not None) == forced
        expected_notes = {FORCED_MONOTONICITY: forced, INVALID_QUANTILE: invalid, BAD_BUCKET_LABEL: bool(bad)}
        assert result.notes == {note for note, given in expected_notes.items() if given}

    check()


@pytest.mark.parametrize("cells", [1, 1 << 20])
def test_fractions_agree_with_the_definition(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram, "_CELLS", cells)
    limits = st.one_of(
        st.floats(-4, 12), st.sampled_from([-math.inf, math.inf, math.nan, 0.0, 1.0, 0.1, -1.0, -2.5, 10.0])
    )

    @settings(max_examples=examples(150), deadline=None)
    @given(bucket_series(), st.lists(limits, min_size=3, max_size=3), st.lists(limits, min_size=3, max_size=3))
    def check(drawn: tuple[list[dict[str, str]], Steps], lower: list[float], upper: list[float]) -> None:
        labels, steps = drawn
        result = histogram_fraction(LabelFrame.of(labels), steps, np.array(lower), np.array(upper))
        for step in range(3):
            found = histograms_at(labels, steps, step)
            assert_same(
                answers(result, step),
                {pod: fraction(lower[step], upper[step], buckets) for pod, buckets in found.items()},
            )
        assert result.repair is None

    check()


def one(q: float, buckets: dict[str, float]) -> HistogramResult:
    labels = LabelFrame.of([{"__name__": "m_bucket", "le": le} for le in buckets])
    values = np.array([[count] for count in buckets.values()])
    return histogram_quantile(labels, Steps(values, np.ones(values.shape, np.bool_)), np.array([q]))


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {"0.1": 0, "0.2": 10, "+Inf": 10}, 0.15),
        (0.5, {"10": 4, "+Inf": 4}, 5.0),
        (0.5, {"-10": 4, "+Inf": 4}, -10.0),
        (0.9, {"1": 1, "2": 2, "+Inf": 10}, 2.0),
        (0.5, {"1": 1, "2": 2}, math.nan),
        (0.5, {"+Inf": 2}, math.nan),
        (0.5, {"1": 0, "+Inf": 0}, math.nan),
        (0.5, {"1": math.nan, "+Inf": math.nan}, 1.0),
    ],
)
def test_quantiles_of_small_histograms(q: float, buckets: dict[str, float], expected: float) -> None:
    result = one(q, buckets)
    np.testing.assert_allclose(result.steps.values, [[expected]])
    assert result.notes == frozenset()


def test_rounding_errors_are_levelled_out_silently() -> None:
    result = one(0.5, {"1": 1e13, "2": 1e13 - 1, "+Inf": 1e13})
    assert result.notes == frozenset()
    assert result.steps.values[0, 0] == 0.5


def test_a_repair_tells_what_it_changed() -> None:
    labels = LabelFrame.of([{"le": le} for le in ("1", "2", "5", "+Inf")])
    values = np.array([[9.0, 1.0, 9.0], [7.0, 2.0, 6.0], [9.5, 3.0, 8.0], [10.0, 4.0, 10.0]])
    result = histogram_quantile(labels, Steps(values, np.ones((4, 3), np.bool_)), np.full(3, 0.5))
    assert result.notes == {FORCED_MONOTONICITY}
    assert result.repair == Repair(lowest=2.0, highest=5.0, difference=3.0, points=2, first_step=0, last_step=2)


def test_two_metrics_with_the_same_labels_are_two_histograms() -> None:
    labels = [{"__name__": name, "le": le} for name in ("a_bucket", "b_bucket") for le in ("1", "+Inf")]
    values = np.array([[1.0], [2.0], [3.0], [3.0]])
    result = histogram_quantile(LabelFrame.of(labels), Steps(values, np.ones((4, 1), np.bool_)), np.array([0.5]))
    assert list(result.labels) == [{}, {}]
    assert result.steps.values[:, 0].tolist() == [1.0, 0.5]


def test_series_without_le_are_left_out() -> None:
    labels = LabelFrame.of([{"__name__": "m"}, {"__name__": "m", "le": "x"}])
    result = histogram_quantile(labels, Steps(np.ones((2, 1)), np.ones((2, 1), np.bool_)), np.array([0.5]))
    assert len(result.labels) == 0
    assert result.steps.values.shape == (0, 1)
    assert result.bad_buckets == (("m", ""), ("m", "x"))


def test_no_series() -> None:
    result = histogram_fraction(LabelFrame.of([]), Steps(np.ones((0, 2)), np.ones((0, 2), np.bool_)), *np.zeros((2, 2)))
    assert result.steps.values.shape == (0, 2)
    assert result.notes == frozenset()


@pytest.mark.parametrize(
    ("text", "bound"),
    [("1", 1.0), ("1.", 1.0), (".5", 0.5), ("-2e-3", -0.002), ("+Inf", math.inf), ("-inf", -math.inf),
     ("Infinity", math.inf), ("0x1p-2", 0.25), ("0", 0.0)],
)  # fmt: skip
def test_bounds(text: str, bound: float) -> None:
    assert parse_bound(text) == bound


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1_0", "NaN", "nan", "1e999", "0x1", "0x1p99999", "one", "١", "+", "."]
)
def test_what_is_no_bound(text: str) -> None:
    assert parse_bound(text) is None
