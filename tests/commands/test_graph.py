"""Graphs in the terminal: where a value is drawn, what joins, and that nothing makes them fail."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.commands.graph import MOST_SERIES, draw, number

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.lists(st.integers(0, 10**10), min_size=1, max_size=30, unique=True).map(sorted)


def test_a_line_from_corner_to_corner() -> None:
    lines = list(draw([("up", [(0.0, 0.0), (10.0, 10.0)])], 10.0, 16, 4, colour=False))
    assert lines[0].startswith("10 ┤")
    assert lines[3].startswith(" 0 ┤")
    assert lines[0][4:].strip() == lines[0][-4:].strip()
    assert lines[-1] == "⣀ up"
    drawn = [line.partition("┤")[2] or line.partition("│")[2] for line in lines[:4]]
    starts = [len(row) - len(row.lstrip()) for row in drawn]
    assert starts == sorted(starts, reverse=True)


def test_a_gap_is_not_bridged() -> None:
    def cells(step: float) -> int:
        lines = list(draw([("up", [(0.0, 1.0), (100.0, 1.0)])], step, 40, 6, colour=False))
        return sum(0x2800 < ord(c) < 0x2900 for line in lines[:6] for c in line)

    assert cells(100.0) > 30
    assert cells(10.0) == 2


def test_letters_tell_series_apart_without_colours_and_codes_with_them() -> None:
    series = [("one", [(0.0, 1.0), (1.0, 1.0)]), ("two", [(0.0, 2.0), (1.0, 2.0)])]
    plain = "\n".join(draw(series, 1.0, 40, 6, colour=False))
    assert "aaaa" in plain
    assert "bbbb" in plain
    assert plain.endswith("a one\nb two")
    coloured = "\n".join(draw(series, 1.0, 40, 6, colour=True))
    assert "\x1b[34m━━\x1b[0m one" in coloured
    assert coloured.count("\x1b[0m") == 4


def test_names_do_not_command_the_terminal() -> None:
    assert "\x1b" not in "".join(draw([("a\x1b[2J", [(0.0, 1.0)])], 1.0, 40, 6, colour=False))


@given(
    st.lists(st.tuples(st.text(max_size=5), TIMES, FINITE, FINITE), min_size=1, max_size=MOST_SERIES),
    st.integers(1, 200),
    st.integers(1, 40),
    st.booleans(),
)
def test_every_finite_value_can_be_drawn(
    series: list[tuple[str, list[int], float, float]], width: int, height: int, colour: bool
) -> None:
    named = [
        (name, [(float(moment), low if i % 2 else high) for i, moment in enumerate(times)])
        for name, times, low, high in series
    ]
    lines = list(draw(named, 15.0, width, height, colour))
    assert len(lines) == height + 2 + len(series)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.25, "0.25"), (1500.0, "1.5k"), (-2e9, "-2G"), (1e-7, "1e-07"), (1e20, "1e+20")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
    assert math.isfinite(value)
