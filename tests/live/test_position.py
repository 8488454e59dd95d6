"""Positions of tails as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput
from streamgauge.live.position import Position


@given(st.integers(-(1 << 63) + 10**9, (1 << 63) - 2), st.integers(0, 1 << 62))
def test_a_position_survives_being_text(time: int, index: int) -> None:
    assert Position.parse(str(Position(time, index))) == Position(time, index)


def test_a_time_is_a_position_too() -> None:
    assert Position.parse("1970-01-01T00:00:01Z") == Position(10**9)
    assert Position.parse("1970-01-01T00:00:01.5Z/3") == Position(1_500_000_000, 3)
    assert Position.parse("5m") is None


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z/1"])
def test_times_beyond_what_is_stored_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        Position.parse(text)
