"""Elementwise functions against Python's own, one number at a time."""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.query.promql.math_functions import MATH_FUNCTIONS, clamp_undefined

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

CALENDAR: dict[str, Callable[[datetime], int]] = {
    "minute": lambda at: at.minute,
    "hour": lambda at: at.hour,
    "day_of_week": lambda at: at.isoweekday() % 7,
    "day_of_month": lambda at: at.day,
    "day_of_year": lambda at: at.timetuple().tm_yday,
    "days_in_month": lambda at: calendar.monthrange(at.year, at.month)[1],
    "month": lambda at: at.month,
    "year": lambda at: at.year,
}


def one(name: str, value: float, *parameters: float) -> float:
    """The function of one number, as a matrix of one series and one step."""
    result = MATH_FUNCTIONS[name](np.array([[value]]), *(np.array([parameter]) for parameter in parameters))
    assert result.shape == (1, 1)
    return float(result[0, 0])


def seconds_from(first: datetime, last: datetime) -> st.SearchStrategy[int]:
    return st.integers(int((first - EPOCH).total_seconds()), int((last - EPOCH).total_seconds()))


@given(seconds_from(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)))
def test_calendar(seconds: int) -> None:
    at = EPOCH + timedelta(seconds=seconds)
    for name, part in CALENDAR.items():
        assert one(name, seconds) == part(at), name


def test_calendar_on_every_day_of_four_centuries() -> None:
    days = [datetime(1900, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(146_097)]
    seconds = np.array([(day - EPOCH).total_seconds() for day in days])
    for name in ("day_of_month", "month", "year"):
        expected = [CALENDAR[name](day) for day in days]
        np.testing.assert_array_equal(MATH_FUNCTIONS[name](seconds), expected)


def test_calendar_cuts_fractions_off_towards_zero() -> None:
    assert one("minute", 59.999) == 0
    assert one("hour", -0.5) == 0
    assert one("hour", -1.5) == 23
    assert one("year", -0.999) == 1970


@pytest.mark.parametrize("name", sorted(CALENDAR))
def test_calendar_far_away(name: str) -> None:
    for value in (math.nan, math.inf, -math.inf, 1e300, -(2.0**63)):
        assert math.isnan(one(name, value))
    # The calendar repeats every 400 years. Floats that far away are 128 s apart, and both of these are multiples.
    start, cycles = 951_782_400, 128 * 400_000
    shift = 400 * cycles if name == "year" else 0
    for sign in (-1, 1):
        assert one(name, start + sign * cycles * 146_097 * 86_400) == one(name, start) + sign * shift


UNARY: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "acos": math.acos,
    "acosh": math.acosh,
    "asin": math.asin,
    "asinh": math.asinh,
    "atan": math.atan,
    "atanh": math.atanh,
    "ceil": math.ceil,
    "cos": math.cos,
    "cosh": math.cosh,
    "deg": math.degrees,
    "exp": math.exp,
    "floor": math.floor,
    "ln": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "rad": math.radians,
    "sgn": lambda value: math.copysign(1, value) if value else value,
    "sin": math.sin,
    "sinh": math.sinh,
    "sqrt": math.sqrt,
    "tan": math.tan,
    "tanh": math.tanh,
}


@pytest.mark.parametrize("name", sorted(UNARY))
def test_unary_functions(name: str) -> None:
    for value in (0.0, -0.0, 0.3, -0.3, 1.0, -1.0, 1.7, -2.5, 3.5, 40.0, 1e-300):
        try:
            expected = float(UNARY[name](value))
        except ValueError:
            assert not math.isfinite(one(name, value)), value
        else:
            assert one(name, value) == pytest.approx(expected, rel=1e-14), value
    assert math.isnan(one(name, math.nan))


def test_values_at_the_edge_of_what_is_defined() -> None:
    assert one("ln", 0) == -math.inf
    assert math.isnan(one("ln", -1))
    assert one("exp", 1000) == math.inf
    assert one("exp", -math.inf) == 0
    assert math.isnan(one("sqrt", -1))
    assert math.isnan(one("sin", math.inf))
    assert one("abs", -math.inf) == math.inf
    assert math.copysign(1, one("sgn", -0.0)) == -1


@pytest.mark.parametrize(
    ("value", "nearest", "expected"),
    [(2.5, 1, 3), (-2.5, 1, -2), (2.4, 1, 2), (7.3, 5, 5), (7.5, 5, 10), (0.123, 0.1, 0.1), (-7.5, 5, -5)],
)
def test_round_takes_ties_up(value: float, nearest: float, expected: float) -> None:
    assert one("round", value, nearest) == pytest.approx(expected)


def test_round_to_whole_numbers_by_default() -> None:
    assert one("round", 2.5) == 3
    assert math.isnan(one("round", math.nan))
    assert math.isnan(one("round", 1, 0))
    assert one("round", math.inf) == math.inf


def test_clamp() -> None:
    assert one("clamp", 5, 0, 3) == 3
    assert one("clamp", -5, 0, 3) == 0
    assert one("clamp", 2, 0, 3) == 2
    assert one("clamp_min", 2, 3) == 3
    assert one("clamp_max", 2, 3) == 2
    for bounds in ((math.nan, 3), (0, math.nan)):
        assert math.isnan(one("clamp", 2, *bounds))
    assert math.isnan(one("clamp", math.nan, 0, 3))
    # An infinite bound on the far side leaves nothing to be unknown.
    assert one("clamp_min", math.nan, math.inf) == math.inf
    assert one("clamp_max", math.nan, -math.inf) == -math.inf


def test_clamp_has_no_result_where_its_bounds_are_the_wrong_way_round() -> None:
    lower, upper = np.array([0.0, 2.0, math.nan]), np.array([1.0, 1.0, 1.0])
    assert clamp_undefined(lower, upper).tolist() == [False, True, False]


def test_parameters_broadcast_over_series() -> None:
    values = np.array([[1.0, 5.0], [9.0, -9.0]])
    result = MATH_FUNCTIONS["clamp"](values, np.array([2.0, 0.0]), np.array([4.0, 1.0]))
    assert result.tolist() == [[2.0, 1.0], [4.0, 0.0]]
