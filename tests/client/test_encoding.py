"""Anything becomes JSON."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.client.encoding import encode, encode_text, rfc3339


class Rude:
    def __str__(self) -> str:
        raise RuntimeError


def strictly(data: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(data.decode(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "ü"]}, {"a": [1, 2.5, None, True, "ü"]}),
        (math.nan, "nan"),
        ({"a": math.inf}, {"a": "inf"}),
        ("\ud800", "\\ud800"),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=90), 90.0),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("/tmp"), "/tmp"),
        (b"\xffok", "\\xffok"),
        ({1}, [1]),
        ({"a": Rude()}, {"a": "<Rude without a text>"}),
    ],
)
def test_what_json_lacks_becomes_text(value: object, expected: object) -> None:
    assert strictly(encode(value)) == expected


def test_a_large_integer_stays_a_number_as_long_as_it_can_be_written() -> None:
    assert encode(2**64) == str(2**64).encode()
    assert strictly(encode(10**5000)) == hex(10**5000)


def test_endless_values_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert b"\xe2\x80\xa6" in encode({"loop": loop})
    assert b"\xe2\x80\xa6" in encode(deep)
    del loop[0]
    while deep:  # from without, so that no destructor calls itself for ever
        deep = deep.pop()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.floats(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_is_one_line_of_json(value: object) -> None:
    data = encode(value)
    assert b"\n" not in data
    strictly(data)


@given(st.text() | st.binary())
def test_every_text_is_one_line_of_json(text: str | bytes) -> None:
    data = encode_text(text)
    assert b"\n" not in data
    strictly(data)


@pytest.mark.parametrize("text", ['{"a": [1,\n 2]}', b'{"a":\r\n[1, 2]}', '\ufeff{"a": [1, 2]}'.encode()])
def test_json_text_stays_what_it_means(text: str | bytes) -> None:
    assert strictly(encode_text(text)) == {"a": [1, 2]}


@pytest.mark.parametrize("text", ["{", "NaN", "[1] [2]", "", "[" * 100_000])
def test_text_that_is_no_json_becomes_a_string(text: str) -> None:
    assert strictly(encode_text(text)) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_rfc_3339(ns: int, text: str) -> None:
    assert rfc3339(ns) == text
