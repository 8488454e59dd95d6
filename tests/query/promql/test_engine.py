from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pytest

from streamgauge.errors import BadInput, QueryFailed, QueryTimeout
from streamgauge.model.arrays import stale_marker
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import AggregateKind, Horizon, Matcher, Meter, Selection
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.steps import Grid
from streamgauge.query.result import Evaluation, Matrix, RangeVector, Scalar, String, Vector
from streamgauge.testing import MemorySource

MINUTE = 60_000


class Recording:
    """A source that notes what it was asked for."""

    def __init__(self, source: MemorySource) -> None:
        self.source = source
        self.asked: list[tuple[str, int, int]] = []

    @property
    def horizons(self) -> Sequence[Horizon]:
        return ()

    def select(
        self,
        matchers: Sequence[Matcher],
        start: int,
        end: int,
        meter: Meter,
        aggregate: AggregateKind = AggregateKind.LAST,
    ) -> Selection:
        self.asked.append((matchers[-1].value, start, end))
        return self.source.select(matchers, start, end, meter)

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        start: int,
        end: int,
        meter: Meter,
        names: Collection[str] | None = None,
    ) -> LabelFrame:
        return self.source.series(matcher_sets, start, end, meter, names)


def source() -> MemorySource:
    times = range(0, 10 * MINUTE, 15_000)
    return MemorySource.of(
        [
            ({"__name__": "requests_total", "code": "500", "pod": "b"}, times, [float(i) for i in range(40)]),
            ({"__name__": "requests_total", "code": "200", "pod": "b"}, times, [2.0 * i for i in range(40)]),
            ({"__name__": "requests_total", "code": "200", "pod": "a"}, times, [3.0 * i for i in range(40)]),
            ({"__name__": "temperature", "pod": "a"}, times, [20.0] * 40),
        ]
    )


def instant(expr: str, time: int = 5 * MINUTE, limits: Limits | None = None) -> Evaluation:
    return evaluate(expr, source(), Grid.instant(time), Budget(limits or Limits()), instant=True)


def ranged(expr: str, grid: Grid | None = None) -> Matrix:
    result = evaluate(expr, source(), grid or Grid(0, MINUTE, 10), Budget(Limits()), instant=False).result
    assert isinstance(result, Matrix)
    return result


def test_the_type_of_an_instant_answer_is_that_of_the_expression() -> None:
    assert instant("1 + 1").result == Scalar(5 * MINUTE, 2.0)
    assert instant('"text"').result == String(5 * MINUTE, "text")
    vector = instant("sum(temperature)").result
    assert isinstance(vector, Vector)
    assert (list(vector.labels), vector.values.tolist(), vector.time) == ([{}], [20.0], 5 * MINUTE)
    matrix = instant("temperature[31s]").result
    assert isinstance(matrix, RangeVector)
    assert (list(matrix.labels), matrix.samples.times.tolist()) == (
        [{"__name__": "temperature", "pod": "a"}],
        [270_000, 285_000, 300_000],
    )


def test_a_subquery_is_a_range_vector_too() -> None:
    matrix = instant("(-temperature)[2m:1m] offset 1m").result
    assert isinstance(matrix, RangeVector)
    assert list(matrix.labels) == [{"pod": "a"}]
    assert matrix.samples.times.tolist() == [180_000, 240_000]
    assert matrix.samples.values.tolist() == [-20.0, -20.0]


@pytest.mark.parametrize(
    ("expr", "series"),
    [
        ("sum_over_time(temperature[10s:1m])", []),
        ("sum_over_time(temperature[10s:1m]) or vector(1)", [{}]),
        ("absent_over_time(temperature[10s:1m])", [{}]),
        ("rate(sum_over_time(temperature[1m:15s])[10s:1m])", []),
        ("max_over_time(topk(1, label_replace(temperature, 'a', 'b', '', ''))[10s:1m] @ 310 offset 20s)", []),
    ],
)
def test_a_subquery_may_have_no_steps_at_all(expr: str, series: list[dict[str, str]]) -> None:
    vector = instant(expr, 5 * MINUTE + 50_000).result
    assert isinstance(vector, Vector)
    assert list(vector.labels) == series


def test_an_answer_is_a_matrix_of_all_steps_for_a_range() -> None:
    matrix = ranged("vector(time())", Grid(0, 15_000, 4))
    assert (list(matrix.labels), matrix.times.tolist()) == ([{}], [0, 15_000, 30_000, 45_000])
    assert matrix.values.tolist() == [[0.0, 15.0, 30.0, 45.0]]
    assert ranged("3").values.tolist() == [[3.0] * 10]


@pytest.mark.parametrize("expr", ["temperature[5m]", '"text"'])
def test_a_range_query_for_anything_but_a_vector_or_scalar_is_refused(expr: str) -> None:
    with pytest.raises(BadInput, match="for range query, must be scalar or instant vector"):
        ranged(expr)


def test_series_are_ordered_by_their_labels() -> None:
    assert [(row["code"], row["pod"]) for row in ranged("requests_total").labels] == [
        ("200", "a"),
        ("200", "b"),
        ("500", "b"),
    ]


@pytest.mark.parametrize(
    ("expr", "order"),
    [
        ("sort(requests_total)", ["500b", "200b", "200a"]),
        ("sort_desc(requests_total)", ["200a", "200b", "500b"]),
        ("sort_desc(requests_total) * 2", ["200a", "200b", "500b"]),
        ('sort_by_label(requests_total, "pod", "code")', ["200a", "200b", "500b"]),
        ('sort_by_label_desc(requests_total, "code")', ["500b", "200b", "200a"]),
        ("topk(2, requests_total)", ["200a", "200b"]),
        ("bottomk(2, requests_total)", ["500b", "200b"]),
    ],
)
def test_an_expression_may_order_an_instant_answer(expr: str, order: list[str]) -> None:
    vector = instant(expr).result
    assert isinstance(vector, Vector)
    assert [row["code"] + row["pod"] for row in vector.labels] == order


def test_sorting_a_range_is_pointless_and_says_so() -> None:
    answer = evaluate("sort(requests_total)", source(), Grid(0, MINUTE, 3), Budget(Limits()), instant=False)
    assert answer.warnings == (
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)",
    )


def test_annotations_are_distinct_and_point_into_the_query() -> None:
    answer = instant("sum(rate(temperature[5m])) +\n rate(temperature[1m]) or quantile(2, requests_total)")
    text = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
    assert answer.infos == (text + '"temperature" (1:10)', text + '"temperature" (2:7)')
    assert answer.warnings == ("PromQL warning: quantile value should be between 0 and 1, got 2 (2:36)",)


def test_a_selector_is_read_once_over_all_the_time_it_needs() -> None:
    recording = Recording(source())
    evaluate(
        "sum(rate(requests_total[5m] offset 1m)) / sum(temperature @ end())",
        recording,
        Grid(60 * MINUTE, MINUTE, 60),
        Budget(Limits()),
        instant=False,
    )
    assert recording.asked == [
        ("requests_total", 54 * MINUTE + 1, 118 * MINUTE),
        ("temperature", 114 * MINUTE + 1, 119 * MINUTE),
    ]


def test_a_subquery_is_read_once_on_its_own_grid() -> None:
    recording = Recording(source())
    expr = "max_over_time(sum(rate(requests_total[1m]))[10m:90s])"
    evaluate(expr, recording, Grid(60 * MINUTE + 1, MINUTE, 2), Budget(Limits()), instant=False)
    first = 51 * MINUTE  # the first multiple of 90 s after 50 min
    assert recording.asked == [("requests_total", first - MINUTE + 1, 60 * MINUTE)]


def test_what_is_pinned_is_evaluated_once_and_shown_at_every_step() -> None:
    budget = Budget(Limits())
    matrix = evaluate("temperature @ 60 + 1", source(), Grid(0, 1_000, 500), budget, instant=False).result
    assert isinstance(matrix, Matrix)
    assert (matrix.values == 21.0).all()
    assert matrix.present.all()


def test_a_query_gives_its_intermediate_results_back() -> None:
    budget = Budget(Limits())
    evaluate("sum(requests_total + 0) + sum(requests_total)", source(), Grid(0, MINUTE, 10), budget, instant=False)
    assert 0 <= budget.samples <= 20
    assert budget.peak_samples >= 3 * 40


@pytest.mark.parametrize(
    "expr",
    ["requests_total", "rate(requests_total[5m])", "sum_over_time(vector(1)[100y:1ms])", "vector(time())"],
)
def test_a_query_over_its_budget_fails_before_it_allocates(expr: str) -> None:
    with pytest.raises(QueryFailed, match="needs more than 100 samples"):
        evaluate(expr, source(), Grid(0, 1, 150), Budget(Limits(samples=100)), instant=False)


def test_a_function_that_only_the_parser_knows_is_refused() -> None:
    with pytest.raises(QueryFailed, match=r"start_timestamp\(\) is not supported"):
        instant("start_timestamp(temperature)")


def distinct_values() -> MemorySource:
    return MemorySource.of([({"__name__": "m", "i": str(i)}, [0, 1], [float(i), i + 0.5]) for i in range(1_000)])


@pytest.mark.parametrize(
    "expr",
    [
        'count_values("value", m)',
        "m or label_replace(m, 'i', 'x$1', 'i', '(.*)')",
    ],
)
def test_an_answer_that_outgrows_what_was_asked_of_is_paid_for(expr: str) -> None:
    with pytest.raises(QueryFailed, match="needs more than 7000 samples"):
        evaluate(expr, distinct_values(), Grid(0, 1, 2), Budget(Limits(samples=7_000)), instant=False)


def test_of_many_annotations_ten_are_told() -> None:
    data = MemorySource.of([({"__name__": f"metric{i:02}"}, [0, 1], [1.0, 2.0]) for i in range(25)])
    answer = evaluate('sum(rate({__name__=~".+"}[5m]))', data, Grid.instant(1), Budget(Limits()), instant=True)
    assert len(answer.infos) == 11
    assert answer.infos[-1] == "15 more info annotations omitted"


def test_a_query_out_of_time_stops() -> None:
    now = iter([0.0, *([0.0] * 4), *([1_000.0] * 100)])
    budget = Budget(Limits(seconds=10), monotonic=lambda: next(now))
    with pytest.raises(QueryTimeout):
        evaluate(" + ".join(["sum(requests_total)"] * 20), source(), Grid(0, MINUTE, 10), budget, instant=False)


def test_five_hundred_operators_are_no_deep_stack() -> None:
    assert instant("+".join(["1"] * 501)).result == Scalar(5 * MINUTE, 501.0)
    vector = instant(" or ".join(["temperature"] * 200)).result
    assert isinstance(vector, Vector)
    assert len(vector.labels) == 1


def test_deep_brackets_are_answered_or_refused() -> None:
    assert instant("(" * 100 + "1" + ")" * 100).result == Scalar(5 * MINUTE, 1.0)
    vector = instant("abs(" * 90 + "temperature" + ")" * 90).result
    assert isinstance(vector, Vector)
    with pytest.raises(BadInput, match="nested"):
        instant("1 or (a and b > c + d * e ^ (" * 49 + "1" + "))" * 49)


def test_fifty_nested_subqueries_end() -> None:
    expr = "temperature"
    for _ in range(49):
        expr = f"max_over_time({expr}[1m:15s])"
    vector = instant(expr, 9 * MINUTE).result
    assert isinstance(vector, Vector)
    assert vector.values.tolist() == [20.0]


def test_stale_and_old_samples_are_not_seen() -> None:
    values = np.array([1.0, 0.0, 3.0])
    values[1:2] = stale_marker()
    data = MemorySource.of([({"__name__": "m"}, [0, 60_000, 120_000], values)])
    grid = Grid(0, 30_000, 30)
    result = evaluate("m", data, grid, Budget(Limits()), instant=False, lookback=60_000).result
    assert isinstance(result, Matrix)
    assert result.times[result.present[0]].tolist() == [0, 30_000, 120_000, 150_000]
    counted = evaluate("count_over_time(m[10m])", data, Grid.instant(120_000), Budget(Limits()), instant=True).result
    assert isinstance(counted, Vector)
    assert counted.values.tolist() == [2.0]


def test_query_functions_tell_the_grid_of_the_whole_query_even_in_a_subquery() -> None:
    expr = "last_over_time(vector(start() + 10 * end() + 100 * step() + 1000 * range())[1m:1s])"
    matrix = ranged(expr, Grid(60_000, 30_000, 3))
    assert matrix.values.tolist() == [[60 + 1_200 + 3_000 + 60_000] * 3]
    assert instant("step() + range()").result == Scalar(5 * MINUTE, 0.0)


def test_a_predicted_value_is_that_of_the_evaluation_time() -> None:
    plain = ranged("predict_linear(requests_total{code='500'}[2m], 60)", Grid(5 * MINUTE, MINUTE, 3))
    shifted = ranged("predict_linear(requests_total{code='500'}[2m] offset 1m, 60)", Grid(5 * MINUTE, MINUTE, 3))
    pinned = ranged("predict_linear(requests_total{code='500'}[2m] @ 240, 60)", Grid(5 * MINUTE, MINUTE, 3))
    for matrix in (plain, shifted, pinned):
        np.testing.assert_allclose(matrix.values, [[24.0, 28.0, 32.0]])


def test_scalars() -> None:
    assert instant("scalar(temperature)").result == Scalar(5 * MINUTE, 20.0)
    nothing, several = instant("scalar(nope)").result, instant("scalar(requests_total)").result
    assert isinstance(nothing, Scalar)
    assert isinstance(several, Scalar)
    assert math.isnan(nothing.value)
    assert math.isnan(several.value)


def test_two_series_that_lose_their_difference_are_refused() -> None:
    with pytest.raises(QueryFailed, match="same labelset"):
        instant('label_replace(requests_total, "pod", "x", "code", "200")')
    with pytest.raises(QueryFailed, match="same labelset"):
        instant('rate({__name__=~"requests_total|temperature",pod="a"}[5m]) or sum(rate({pod="a"}[5m])) by (__name__)')
