"""Functions of one number, over whole arrays: rounding, logarithms, trigonometry and the calendar.

Every function takes values of any shape, and scalar parameters that broadcast against them. None raises: what is
undefined is NaN. Floating-point conventions are those of IEEE 754, as PromQL's are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s

SECONDS_A_DAY = 86_400


def _quiet(function: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """The function without NumPy's warnings: infinities and NaN are answers here."""

    def quiet(values: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return function(values)

    return quiet


def _sign(values: Floats) -> Floats:
    return np.where(values > 0, 1.0, np.where(values < 0, -1.0, values))


def _degrees(values: Floats) -> Floats:
    return values * 180 / np.pi


def _radians(values: Floats) -> Floats:
    return values * np.pi / 180


def round_to(values: Floats, nearest: Floats | float = 1.0) -> Floats:
    """The nearest multiple of `nearest`; ties go up."""
    with np.errstate(all="ignore"):
        inverse = 1.0 / np.asarray(nearest, np.float64)
        rounded: Floats = np.floor(values * inverse + 0.5) / inverse
    return rounded


def _at_most(values: Floats, limit: Floats) -> Floats:
    """The smaller one, NaN where either is NaN, unless the other is -Inf."""
    lowest = (values == -np.inf) | (limit == -np.inf)
    return np.where(lowest, -np.inf, np.minimum(values, limit))


def _at_least(values: Floats, limit: Floats) -> Floats:
    """The larger one, NaN where either is NaN, unless the other is +Inf."""
    highest = (values == np.inf) | (limit == np.inf)
    return np.where(highest, np.inf, np.maximum(values, limit))


def clamp(values: Floats, lower: Floats, upper: Floats) -> Floats:
    """Values held between two bounds. Where `clamp_undefined`, PromQL has no result at all."""
    return _at_least(_at_most(values, upper), lower)


def clamp_undefined(lower: Floats, upper: Floats) -> Bools:
    """True at the steps where the bounds of `clamp` are the wrong way round, so that no series has a value."""
    undefined: Bools = upper < lower
    return undefined


def clamp_min(values: Floats, lower: Floats) -> Floats:
    return _at_least(values, lower)


def clamp_max(values: Floats, upper: Floats) -> Floats:
    return _at_most(values, upper)


def _calendar(part: Callable[[Int64s], Int64s]) -> Callable[[Floats], Floats]:
    """A function of Unix seconds as floats from one of whole seconds. Fractions are cut off towards zero; NaN and what
    does not fit into 64 bits give NaN."""

    def of_seconds(values: Floats) -> Floats:
        known = np.abs(values) < 2.0**63
        seconds = np.where(known, values, 0.0).astype(np.int64)
        return np.where(known, part(seconds), np.nan)

    return of_seconds


def _civil(seconds: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Year, month and day of the proleptic Gregorian calendar.

    Counts in years that begin in March, so that the leap day comes last, and in cycles of 400 years of 146,097 days
    (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    """
    days = seconds // SECONDS_A_DAY + 719_468
    cycle, day = np.divmod(days, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day_of_year = day - (365 * year + year // 4 - year // 100)
    march_month = (5 * day_of_year + 2) // 153
    month = np.where(march_month < 10, march_month + 3, march_month - 9)
    return (
        400 * cycle + year + (month <= 2),
        month,
        day_of_year - (153 * march_month + 2) // 5 + 1,
    )


def _is_leap(year: Int64s) -> Bools:
    leap: Bools = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return leap


_DAYS_IN_MONTH = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_DAYS_BEFORE_MONTH = np.concatenate(([0], np.cumsum(_DAYS_IN_MONTH)[:-1]))


def _day_of_year(seconds: Int64s) -> Int64s:
    year, month, day = _civil(seconds)
    days: Int64s = _DAYS_BEFORE_MONTH[month - 1] + day + ((month > 2) & _is_leap(year))
    return days


def _days_in_month(seconds: Int64s) -> Int64s:
    year, month, _ = _civil(seconds)
    days: Int64s = _DAYS_IN_MONTH[month - 1] + ((month == 2) & _is_leap(year))
    return days


MATH_FUNCTIONS: Mapping[str, Callable[..., Floats]] = {
    "abs": np.abs,
    "acos": _quiet(np.arccos),
    "acosh": _quiet(np.arccosh),
    "asin": _quiet(np.arcsin),
    "asinh": _quiet(np.arcsinh),
    "atan": _quiet(np.arctan),
    "atanh": _quiet(np.arctanh),
    "ceil": np.ceil,
    "clamp": clamp,
    "clamp_max": clamp_max,
    "clamp_min": clamp_min,
    "cos": _quiet(np.cos),
    "cosh": _quiet(np.cosh),
    "day_of_month": _calendar(lambda seconds: _civil(seconds)[2]),
    "day_of_week": _calendar(lambda seconds: (seconds // SECONDS_A_DAY + 4) % 7),
    "day_of_year": _calendar(_day_of_year),
    "days_in_month": _calendar(_days_in_month),
    "deg": _quiet(_degrees),
    "exp": _quiet(np.exp),
    "floor": np.floor,
    "hour": _calendar(lambda seconds: seconds // 3_600 % 24),
    "ln": _quiet(np.log),
    "log10": _quiet(np.log10),
    "log2": _quiet(np.log2),
    "minute": _calendar(lambda seconds: seconds // 60 % 60),
    "month": _calendar(lambda seconds: _civil(seconds)[1]),
    "rad": _quiet(_radians),
    "round": round_to,
    "sgn": _sign,
    "sin": _quiet(np.sin),
    "sinh": _quiet(np.sinh),
    "sqrt": _quiet(np.sqrt),
    "tan": _quiet(np.tan),
    "tanh": _quiet(np.tanh),
    "year": _calendar(lambda seconds: _civil(seconds)[0]),
}
"""PromQL's elementwise functions by name: values of any shape, then the function's scalar parameters, which broadcast
([steps] against [series, steps])."""
