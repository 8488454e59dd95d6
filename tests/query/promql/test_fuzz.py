"""Random expressions: whatever is asked, the answer is a result or one of our errors."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgauge.errors import StreamgaugeError
from streamgauge.model.arrays import stale_marker
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.format import format_query, parse_tree
from streamgauge.query.promql.parser import parse
from streamgauge.query.promql.steps import Grid
from streamgauge.query.result import Matrix, Vector
from streamgauge.testing import MemorySource
from streamgauge.testing.thorough import examples

SELECTORS = [
    "m",
    "m_total",
    'm{a="1"}',
    '{__name__=~"m.*",b!=""}',
    "h_bucket",
    "nothing",
    "target_info",
    "m offset 30s",
    "m @ 60",
    "m_total @ end()",
    "m offset -1m",
]
RANGES = [
    "m[2m]",
    "m_total[1m] offset 30s",
    "m_total[90s] @ 120",
    "nothing[1m]",
    "m[2m:30s]",
    "m[10s:1m]",
    "(m + m)[1m:]",
    "m[1m] @ start()",
]
ELEMENTWISE = ["abs", "ceil", "sqrt", "ln", "sgn", "minute", "day_of_week", "timestamp", "sort", "absent", "-", "+"]
OVER_TIME = ["rate", "irate", "increase", "delta", "sum_over_time", "avg_over_time", "last_over_time", "changes"]
OVER_TIME += ["deriv", "stddev_over_time", "mad_over_time", "absent_over_time", "present_over_time", "resets"]
AGGREGATIONS = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]
WITH_PARAM = ["topk", "bottomk", "quantile", "limitk", "limit_ratio"]
GROUPINGS = ["", " by (a)", " by (a, b)", " without (b)", " by (__name__)", " by ()", " without ()", " by (nope)"]
OPERATORS = ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">=", "> bool", "and", "or", "unless"]
MATCHINGS = ["", " on (a)", " ignoring (b)", " on (a) group_left (b)", " on (a) group_right ()", " on ()", " fill (1)"]
NUMBERS = ["0", "1", "-1", "0.5", "2", "1e300", "NaN", "Inf", "time()", "scalar(m)", "pi()", "end()"]


def calls(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one_of = st.sampled_from
    return st.one_of(
        st.tuples(one_of(ELEMENTWISE), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(one_of(AGGREGATIONS), one_of(GROUPINGS), inner).map(lambda t: f"{t[0]}{t[1]} ({t[2]})"),
        st.tuples(one_of(WITH_PARAM), one_of(GROUPINGS), one_of(NUMBERS), inner).map(
            lambda t: f"{t[0]}{t[1]} ({t[2]}, {t[3]})"
        ),
        st.tuples(inner, one_of(OPERATORS), one_of(MATCHINGS), inner).map(lambda t: f"{t[0]} {t[1]}{t[2]} {t[3]}"),
        st.tuples(inner, one_of(OPERATORS), one_of(NUMBERS)).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(one_of(["sum_over_time", "rate", "last_over_time"]), inner).map(
            lambda t: f"{t[0]}(({t[1]})[2m:30s])"
        ),
        inner.map(lambda e: f'label_replace({e}, "a", "$1x", "b", "(.*)")'),
        inner.map(lambda e: f'label_join({e}, "b", "-", "a", "__name__")'),
        inner.map(lambda e: f'count_values("v", {e})'),
        inner.map(lambda e: f"histogram_quantile(0.9, {e})"),
        inner.map(lambda e: f"clamp({e}, scalar(m), 3)"),
        inner.map(lambda e: f"vector(scalar({e}))"),
        inner.map(lambda e: f"info({e})"),
    )


EXPRESSIONS = st.recursive(
    st.one_of(
        st.sampled_from(SELECTORS),
        st.tuples(st.sampled_from(OVER_TIME), st.sampled_from(RANGES)).map(lambda t: f"{t[0]}({t[1]})"),
        st.sampled_from(NUMBERS).map(lambda n: f"vector({n})"),
    ),
    calls,
    max_leaves=6,
)


def some_series() -> MemorySource:
    random = np.random.default_rng(7)
    series = []
    for name in ("m", "m_total"):
        for a in ("1", "2"):
            for b in ("", "x", "y"):
                times = np.sort(random.choice(np.arange(0, 300_000, 5_000), 15, replace=False))
                values = np.round(random.normal(0, 5, 15), 1)
                values[random.integers(0, 15, 3)] = random.choice([np.nan, np.inf, -np.inf, 0.0], 3)
                values[random.integers(0, 15)] = stale_marker()[0]
                series.append(({"__name__": name, "a": a, "b": b, "instance": "i", "job": a}, times, values))
    series += [
        ({"__name__": "h_bucket", "le": bound, "a": "1"}, np.array([0, 60_000]), np.array([1.0, 2.0]))
        for bound in ("0.1", "1", "+Inf", "x")
    ]
    series.append(
        ({"__name__": "target_info", "instance": "i", "job": "1", "zone": "z"}, np.array([0]), np.array([1.0]))
    )
    return MemorySource.of(series)


SOURCE = some_series()


@settings(max_examples=examples(250), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expr=EXPRESSIONS)
def test_every_expression_gives_a_result_or_one_of_our_errors(expr: str) -> None:
    try:
        matrix = evaluate(expr, SOURCE, Grid(0, 30_000, 9), Budget(Limits()), instant=False).result
    except StreamgaugeError:
        return
    assert isinstance(matrix, Matrix)
    assert matrix.values.shape == matrix.present.shape == (len(matrix.labels), 9)
    assert matrix.present.any(axis=1).all()
    assert len({tuple(labels.items()) for labels in matrix.labels}) == len(matrix.labels)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expr=EXPRESSIONS)
def test_a_step_of_a_range_query_is_the_instant_query_at_that_time(expr: str) -> None:
    if any(word in expr for word in ("end()", "start()", "sort")):
        return
    try:
        matrix = evaluate(expr, SOURCE, Grid(30_000, 90_000, 3), Budget(Limits()), instant=False).result
    except StreamgaugeError:
        return
    assert isinstance(matrix, Matrix)
    for step, time in enumerate(matrix.times.tolist()):
        vector = evaluate(expr, SOURCE, Grid.instant(time), Budget(Limits()), instant=True).result
        assert isinstance(vector, Vector)
        got = {tuple(labels.items()): value for labels, value in zip(vector.labels, vector.values, strict=True)}
        rows = np.flatnonzero(matrix.present[:, step])
        want = {tuple(matrix.labels.labels(row).items()): matrix.values[row, step] for row in rows}
        assert got.keys() == want.keys()
        for labels, value in want.items():
            np.testing.assert_allclose(got[labels], value, rtol=1e-9)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expr=EXPRESSIONS)
def test_formatting_does_not_change_a_query(expr: str) -> None:
    try:
        before = parse_tree(expr)
    except StreamgaugeError:
        return
    text = format_query(expr)
    assert parse_tree(text) == before
    assert format_query(text) == text


CHILD = """
import random, sys
from streamgauge.errors import StreamgaugeError
from streamgauge.query.promql.parser import parse
pieces = sys.argv[1].split("\\x1f")
random.seed(11)
for _ in range(1500):
    text = "".join(random.choice(pieces) for _ in range(random.choice((3, 8, 30, 200))))
    try:
        parse(text)
    except StreamgaugeError:
        pass
for text in ("(" * 60000, "-" * 60000, "a" + "+a" * 30000, "a" + "[5m:1m]" * 9000, "x^" * 30000, "{" * 60000,
             '"' * 60001, "sum(" * 15000, "a" + " offset 1m" * 6000, "\\\\" * 60000, "\\ud800", "1e" * 30000,
             "{" + 'a="b" or ' * 6000 + '}', "a" * 65537, "[1e20]", "a[1e20]", "a @ -1", "a @ 1e20", "a offset 1e20"):
    try:
        parse(text)
    except StreamgaugeError:
        pass
print("survived")
"""
PIECES = [
    *SELECTORS, *RANGES, *OPERATORS, *MATCHINGS, *GROUPINGS, *NUMBERS, *AGGREGATIONS, *WITH_PARAM, *ELEMENTWISE,
    *"()[]{},:@+-*/%^\"'`\\# \n=!~<>.0123456789eExXaßµ\U0001f600", "[1e20]", "@ -1", "offset", "1e400", "5m",
    "0x", "info(m, {",
    "\\x41", "or", " by ", '"a\\xc5z"', "=~", '"("', '"[a-"', "@ 1e18", "[5m", ":", "start()", "𝔘",
]  # fmt: skip


def test_no_text_takes_the_process_down() -> None:
    """In a process of its own: what it looks for is a crash."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "\x1f".join(PIECES)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "survived\n"
    assert parse("m") is not None


SMALL_STACK = """
import sys, threading
from streamgauge.errors import BadInput
from streamgauge.query.promql.parser import SMALL_BYTES, parse
def read():
    for text in sys.argv[1].split("\x1f"):
        assert len(text) <= SMALL_BYTES
        try:
            parse(text)
        except BadInput:
            pass
    print("survived")
threading.stack_size(512 << 10)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""
DEEP = ["+".join("a" * 128), "-" * 98 + "a", "(" * 98 + "a" + ")" * 98, "abs(" * 51 + "a" + ")" * 51, "a^" * 127 + "a",
        "-(" * 85 + "a" + ")" * 85, "sum(a+" * 36 + "a" + ")" * 36, "a or " * 51 + "a", "a" + "[1m:]" * 51]  # fmt: skip


def test_what_is_parsed_without_a_large_stack_needs_none() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL_STACK, "\x1f".join(DEEP)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "survived\n"
