from __future__ import annotations

import math
import struct
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgauge.model.arrays import stale_marker
from streamgauge.query.text import concatenated, join, join_present, strings, time_texts, value_texts


def go_format(value: float) -> str:
    """strconv.FormatFloat(value, 'f' or 'e', -1, 64) as Prometheus' HTTP API chooses between the two: digits are
    those of Python's repr, the shortest that give the same float."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size == 0 or 1e-6 <= size < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").removesuffix(".") if "." in text else text
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    exponent += len(digits) - 1
    mantissa = "".join(map(str, digits))
    point = "." if len(mantissa) > 1 else ""
    power = f"{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return f"{'-' if sign else ''}{mantissa[0]}{point}{mantissa[1:]}e{power}"


bits = st.integers(0, 2**64 - 1).map(lambda number: struct.unpack("<d", struct.pack("<Q", number))[0])
counters = st.integers(-(10**22), 10**22).map(float)
scaled = st.builds(lambda digits, power: digits * 10.0**power, st.integers(-(10**6), 10**6), st.integers(-30, 30))


@given(st.lists(st.one_of(st.floats(), bits, counters, scaled), max_size=20))
@example([0.0, -0.0, 1.0, -1.0, 0.1, 1e-6, 9.999999999999999e-7, 1e-7, -1e-7, 1e-10, 5e-324, 2.2250738585072014e-308])
@example([1e10, 9999999999.0, 12345678901.5, -12345678901.5, 2.0**53, 2.0**53 + 2, -(2.0**60), 1e15, 1e16, 1e17])
@example([1e20, 1e21, 999999999999999900000.0, -1e21, 1.5e300, 1.7976931348623157e308, math.nan, math.inf, -math.inf])
def test_values_are_spelled_as_go_spells_them(values: list[float]) -> None:
    assert value_texts(np.array(values, np.float64)).to_pylist() == [go_format(value) for value in values]


def test_a_stale_marker_and_a_negative_nan_are_nan() -> None:
    values = np.concatenate([stale_marker(), np.copysign([math.nan], -1)])
    assert value_texts(values).to_pylist() == ["NaN", "NaN"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0"),
        (1, "0.001"),
        (10, "0.010"),
        (1_435_781_451_781, "1435781451.781"),
        (1_435_781_451_500, "1435781451.500"),
        (1_435_781_451_000, "1435781451"),
        (-1, "-0.001"),
        (-1500, "-1.500"),
        (-2000, "-2"),
    ],
)
def test_times_are_spelled_as_prometheus_spells_them(milliseconds: int, text: str) -> None:
    assert time_texts(np.array([milliseconds])).to_pylist() == [text]


@given(st.lists(st.integers(-(2**62), 2**62), max_size=20))
def test_times_are_seconds(milliseconds: list[int]) -> None:
    texts = time_texts(np.array(milliseconds, np.int64)).to_pylist()
    assert [Decimal(str(text)) * 1000 for text in texts] == milliseconds


def test_joining() -> None:
    left, right = strings(["a", "b"]), strings(["x", ""])
    assert join("<", left, "|", right, ">").to_pylist() == ["<a|x>", "<b|>"]
    assert concatenated(join(left, right)) == b"axb"
    assert concatenated(strings(["ab", "cd", "ef"]).slice(1, 1)) == b"cd"
    assert concatenated(strings([])) == b""


def test_joining_what_is_present() -> None:
    columns = [pa.array(["a", None, "d"], pa.string()), pa.array(["b", "c", None], pa.string())]
    assert join_present(columns, ",").to_pylist() == ["a,b", "c", "d"]
