"""Limits as they are written."""

from __future__ import annotations

import pytest

from streamgauge.errors import BadInput
from streamgauge.model.series_limits import CountLimit, parse_limit


def test_a_number_is_for_every_name() -> None:
    limit = parse_limit("200000")
    assert (limit.of(b"any"), limit.of(b"")) == (200_000, 200_000)


def test_exceptions_go_by_name() -> None:
    limit = parse_limit("10, big = 500000 ,none=0,a=b=3")
    assert [limit.of(name) for name in (b"big", b"none", b"a=b", b"other")] == [500_000, 0, 3, 10]
    assert parse_limit(str(limit)) == limit == CountLimit(10, {b"big": 500_000, b"none": 0, b"a=b": 3})


@pytest.mark.parametrize(
    "text", ["", "many", "-1", "1.5", "10,big", "10,=5", "10,big=", "10,big=x", "big=5", "4294967297", "9" * 5000, "٣"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_limit(text)
