"""Aggregations against a few lines of plain Python each, on random matrices with holes, NaN and infinities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import QueryFailed
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import NoMeter
from streamgauge.query.promql.aggregate import aggregate
from streamgauge.query.promql.annotations import Annotations
from streamgauge.query.promql.nodes import Aggregate
from streamgauge.query.promql.parser import parse
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, no_names
from streamgauge.testing.thorough import examples

VALUES = st.one_of(
    st.integers(-5, 5).map(float),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e300]),
)
QUANTILES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0, -1.0, 2.0, math.nan])
WIDTH = 3


@st.composite
def vectors(draw: st.DrawFn) -> InstantVector:
    rows = draw(st.integers(0, 24))
    labels = [{"__name__": "m", "g": str(draw(st.integers(0, 3))), "row": str(row)} for row in range(rows)]
    values = np.array(draw(st.lists(VALUES, min_size=rows * WIDTH, max_size=rows * WIDTH))).reshape(rows, WIDTH)
    present = np.array(draw(st.lists(st.booleans(), min_size=rows * WIDTH, max_size=rows * WIDTH)), np.bool_)
    return InstantVector(LabelFrame.of(labels), Steps(values, present.reshape(rows, WIDTH)), no_names(rows))


def run(query: str, vector: InstantVector, *param: float, instant: bool = False) -> InstantVector:
    node = parse(query)
    assert isinstance(node, Aggregate)
    return aggregate(
        node, vector, np.array(param, np.float64) if param else None, Annotations(query), NoMeter(), instant=instant
    )


def groups(vector: InstantVector, step: int) -> dict[str, list[tuple[int, float]]]:
    """For each g the rows that are present at a step, with their values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in range(len(vector)):
        if vector.steps.present[row, step]:
            g = vector.labels.labels(row).get("g", "")
            found.setdefault(g, []).append((row, float(vector.steps.values[row, step])))
    return found


def quantile(q: float, values: Sequence[float]) -> float:
    if not 0 <= q <= 1:
        return math.nan if math.isnan(q) else math.copysign(math.inf, q - 0.5)
    ordered = sorted(values, key=lambda v: (not math.isnan(v), v))
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    with np.errstate(all="ignore"):
        return float(np.float64(ordered[low]) * (1 - (rank - low)) + np.float64(ordered[high]) * (rank - low))


def total(values: Sequence[float]) -> float:
    if all(map(math.isfinite, values)):
        try:
            return math.fsum(values)
        except OverflowError:
            pass
    with np.errstate(all="ignore"):
        return float(np.sum(np.array(values)))


def mean(values: Sequence[float]) -> float:
    return total([value / len(values) for value in values])


def variance(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    middle = mean(values)
    with np.errstate(all="ignore"):
        return mean([float(np.float64(value - middle) ** 2) for value in values])


def extreme(choose: Callable[[list[float]], float]) -> Callable[[Sequence[float]], float]:
    return lambda values: choose([v for v in values if not math.isnan(v)] or [math.nan])


MODELS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": total,
    "avg": mean,
    "min": extreme(min),
    "max": extreme(max),
    "count": lambda values: float(len(values)),
    "group": lambda values: 1.0,
    "stddev": lambda values: math.sqrt(variance(values)),
    "stdvar": variance,
}


def assert_same(got: float, want: float, scale: float = 0.0) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("op", MODELS)
@settings(max_examples=examples(25), deadline=None)
@given(vector=vectors())
def test_reductions(op: str, vector: InstantVector) -> None:
    result = run(f"{op} by (g) (m)", vector)
    for step in range(WIDTH):
        want = {g: [value for _, value in members] for g, members in groups(vector, step).items()}
        got = groups(result, step)
        assert got.keys() == want.keys()
        for g, values in want.items():
            finite = [abs(value) for value in values if math.isfinite(value)]
            largest = max(finite, default=0.0)
            if op.startswith("std") and largest > 1e150:
                continue  # squares overflow, and how they do is nobody's promise
            assert_same(got[g][0][1], MODELS[op](values), largest)


def test_sums_of_numbers_of_very_different_size_lose_nothing() -> None:
    values = np.array([[1e100], [2.0], [-1e100], [8.0], [1e-8]])
    labels = LabelFrame.of([{"i": str(i)} for i in range(5)])
    vector = InstantVector(labels, Steps(values, np.ones_like(values, np.bool_)), no_names(5))
    assert run("sum(m)", vector).steps.values.tolist() == [[10.00000001]]
    assert run("avg(m)", vector).steps.values.tolist() == [[10.00000001 / 5]]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 5_000])
@pytest.mark.parametrize("steps", [1, 3, 500])
def test_groups_of_every_size_are_added_up_exactly(size: int, steps: int) -> None:
    random = np.random.default_rng(size * steps)
    values = random.normal(0, 1, (size, steps)) * 10.0 ** random.integers(-8, 9, (size, 1))
    group = random.integers(0, 3, size)
    labels = LabelFrame.of([{"g": str(g)} for g in group.tolist()])
    vector = InstantVector(labels, Steps(values, np.ones_like(values, np.bool_)), no_names(size))
    result = run("sum by (g) (m)", vector)
    for row, found in enumerate(result.labels):
        for step in {0, steps // 2, steps - 1}:
            assert_same(result.steps.values[row, step], math.fsum(values[group == int(found["g"]), step]))


@settings(max_examples=examples(30), deadline=None)
@given(vector=vectors(), q=st.lists(QUANTILES, min_size=3, max_size=3))
def test_quantile(vector: InstantVector, q: list[float]) -> None:
    result = run("quantile by (g) (0.5, m)", vector, *q)
    for step in range(WIDTH):
        want = groups(vector, step)
        got = groups(result, step)
        assert got.keys() == want.keys()
        for g, members in want.items():
            assert_same(got[g][0][1], quantile(q[step], [value for _, value in members]))


@settings(max_examples=examples(30), deadline=None)
@given(vector=vectors(), k=st.lists(st.integers(0, 5), min_size=3, max_size=3), largest=st.booleans())
def test_topk_and_bottomk(vector: InstantVector, k: list[int], largest: bool) -> None:
    result = run(f"{'topk' if largest else 'bottomk'} by (g) (1, m)", vector, *map(float, k))
    for step in range(WIDTH):
        got = {g: [value for _, value in members] for g, members in groups(result, step).items()}
        for g, members in groups(vector, step).items():
            values = [value for _, value in members]
            best = sorted(values, key=lambda v: (math.isnan(v), -v if largest else v))[: k[step]]
            assert sorted(map(repr, got.get(g, []))) == sorted(map(repr, best)) or sorted(
                v + 0.0 for v in got.get(g, [])
            ) == sorted(v + 0.0 for v in best)


@settings(max_examples=examples(30), deadline=None)
@given(vector=vectors(), k=st.lists(st.integers(0, 5), min_size=3, max_size=3))
def test_limitk_takes_the_first_rows(vector: InstantVector, k: list[int]) -> None:
    result = run("limitk by (g) (1, m)", vector, *map(float, k))
    for step in range(WIDTH):
        got = {g: [value for _, value in members] for g, members in groups(result, step).items()}
        for g, members in groups(vector, step).items():
            np.testing.assert_array_equal(got.get(g, []), [value for _, value in members][: k[step]])


@settings(max_examples=examples(25), deadline=None)
@given(vector=vectors(), ratio=st.floats(0.01, 0.99))
def test_a_ratio_and_its_complement_share_the_series_out(vector: InstantVector, ratio: float) -> None:
    some = run("limit_ratio(0.5, m)", vector, *[ratio] * WIDTH)
    others = run("limit_ratio(0.5, m)", vector, *[ratio - 1] * WIDTH)
    assert int(some.steps.present.sum() + others.steps.present.sum()) == int(vector.steps.present.sum())
    rows = [labels["row"] for part in (some, others) for labels in part.labels]
    assert len(rows) == len(set(rows))


def test_a_ratio_takes_about_its_share() -> None:
    labels = LabelFrame.of([{"pod": f"pod-{i}"} for i in range(2_000)])
    vector = InstantVector(labels, Steps(np.zeros((2_000, 1)), np.ones((2_000, 1), np.bool_)), no_names(2_000))
    assert 500 < len(run("limit_ratio(0.3, m)", vector, 0.3)) < 700


@settings(max_examples=examples(30), deadline=None)
@given(vector=vectors())
def test_count_values(vector: InstantVector) -> None:
    result = run('count_values by (g) ("value", m)', vector)
    for step in range(WIDTH):
        for g, members in groups(vector, step).items():
            rows = [row for row, labels in enumerate(result.labels) if labels["g"] == g]
            counted = {
                result.labels.labels(row)["value"]: int(result.steps.values[row, step])
                for row in rows
                if result.steps.present[row, step]
            }
            assert sum(counted.values()) == len(members)
            for text, count in counted.items():
                same = [v for _, v in members if (math.isnan(v) and text == "NaN") or repr(v) == repr(float(text))]
                assert len(same) == count


def test_an_instant_topk_is_in_order_within_its_groups() -> None:
    labels = LabelFrame.of([{"g": "x", "i": "1"}, {"g": "y", "i": "2"}, {"g": "x", "i": "3"}, {"g": "x", "i": "4"}])
    vector = InstantVector(
        labels, Steps(np.array([[1.0], [9.0], [3.0], [2.0]]), np.ones((4, 1), np.bool_)), no_names(4)
    )
    assert [row["i"] for row in run("topk by (g) (2, m)", vector, 2, instant=True).labels] == ["3", "4", "2"]
    assert [row["i"] for row in run("bottomk by (g) (2, m)", vector, 2, instant=True).labels] == ["1", "4", "2"]


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        ("topk(1, m)", math.nan, "Parameter value is NaN"),
        ("limitk(1, m)", 1e30, "overflows int64"),
        ("bottomk(1, m)", -1e30, "underflows int64"),
        ("limit_ratio(1, m)", math.nan, "Ratio value is NaN"),
    ],
)
def test_senseless_parameters_are_refused(query: str, param: float, message: str) -> None:
    vector = InstantVector(LabelFrame.of([{"a": "b"}]), Steps(np.ones((1, 1)), np.ones((1, 1), np.bool_)), no_names(1))
    with pytest.raises(QueryFailed, match=message):
        run(query, vector, param)
