"""Line graphs in a terminal, in Braille: each character cell is two dots wide and four high.

Where there is no colour, and more than one series, a cell shows the letter of its series instead of dots.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from streamgauge.commands.table import printable

Points = Sequence[tuple[float, float]]
"""(time in seconds, finite value), by time."""

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot in the code point, by column and row (The Unicode Standard, Braille Patterns)."""
_COLOURS = (34, 33, 32, 31, 35, 36, 94, 93)  # of ANSI terminals
_LETTERS = "abcdefgh"
MOST_SERIES = len(_LETTERS)
"""More lines than this cannot be told apart in a terminal."""
_TICK_WIDTH = 14
_HUGE = 1e300
_TINY = 1e-12
"""Beyond the one, and closer together than the other, values are drawn as the same: doubles have no digits left there
for an axis."""


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float

    def part(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def draw(series: Sequence[tuple[str, Points]], step: float, width: int, height: int, colour: bool) -> Iterator[str]:
    """The lines of a graph of at most MOST_SERIES named series, `width` columns wide and `height` rows high, a legend
    below them. Points further apart than `step` seconds are not joined."""
    times = _times(series)
    ticks = _ticks([value for _, points in series for _, value in points], max(2, height // 5))
    values = Range(ticks[0], ticks[-1])
    labels = [number(tick) for tick in ticks]
    margin = max(map(len, labels)) + 1
    canvas = _Canvas(max(10, width - margin - 1), height)
    for index, (_, points) in enumerate(series):
        _plot(canvas, index, points, step, times, values)
    label_of = {
        height - 1 - round(values.part(tick) * (height - 1)): text for tick, text in zip(ticks, labels, strict=True)
    }
    for row, cells in enumerate(canvas.rows(colour, letters=not colour and len(series) > 1)):
        axis = "┤" if row in label_of else "│"
        yield f"{label_of.get(row, ''):>{margin - 1}} {axis}{cells}".rstrip()
    yield " " * margin + "└" + "─" * canvas.width
    yield " " * (margin + 1) + _time_axis(times, canvas.width)
    for index, (name, _) in enumerate(series):
        mark = f"\x1b[{_COLOURS[index]}m━━\x1b[0m" if colour else _LETTERS[index] if len(series) > 1 else "⣀"
        yield f"{mark} {printable(name)}"


class _Canvas:
    """Dots, each cell of the series that drew into it last."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.across, self.down = 2 * width, 4 * height  # in dots
        self._dots = [[0] * width for _ in range(height)]
        self._series = [[0] * width for _ in range(height)]

    def dot(self, x: int, y: int, series: int) -> None:
        """Set a dot; y counts from the bottom."""
        row, column = (self.down - 1 - y) // 4, x // 2
        if self._series[row][column] != series:
            self._dots[row][column] = 0
            self._series[row][column] = series
        self._dots[row][column] |= _DOTS[x % 2][(self.down - 1 - y) % 4]

    def rows(self, colour: bool, letters: bool) -> Iterator[str]:
        for dots, owners in zip(self._dots, self._series, strict=True):
            text, current = "", -1
            for bits, series in zip(dots, owners, strict=True):
                if colour and bits and series != current:
                    text += f"\x1b[{_COLOURS[series]}m"
                    current = series
                text += " " if not bits else _LETTERS[series] if letters else chr(_BRAILLE + bits)
            yield text + ("\x1b[0m" if current >= 0 else "")


def _plot(canvas: _Canvas, index: int, points: Points, step: float, times: Range, values: Range) -> None:
    last: tuple[float, int, int] | None = None
    for moment, value in points:
        x = round(times.part(moment) * (canvas.across - 1))
        y = round(values.part(min(max(value, values.low), values.high)) * (canvas.down - 1))
        if last is None or moment - last[0] > 1.5 * step:
            canvas.dot(x, y, index)
        else:
            _join(canvas, index, last[1:], (x, y))
        last = moment, x, y


def _join(canvas: _Canvas, index: int, begin: tuple[int, int], end: tuple[int, int]) -> None:
    count = max(abs(end[0] - begin[0]), abs(end[1] - begin[1]), 1)
    for i in range(count + 1):
        part = i / count
        canvas.dot(round(begin[0] + part * (end[0] - begin[0])), round(begin[1] + part * (end[1] - begin[1])), index)


def _times(series: Sequence[tuple[str, Points]]) -> Range:
    moments = [moment for _, points in series for moment in (points[0][0], points[-1][0])]
    low, high = min(moments), max(moments)
    return Range(low, high) if high > low else Range(low - 0.5, high + 0.5)


def _ticks(values: Sequence[float], count: int) -> list[float]:
    """About `count` round numbers, evenly spaced, the first at or below all values and the last at or above them."""
    low, high = (min(max(value, -_HUGE), _HUGE) for value in (min(values), max(values)))
    if high - low < _TINY * max(abs(low), abs(high), _TINY):
        low = high
    if 0 < low < 2 * (high - low):
        low = 0.0  # so that small changes of a value near zero do not look large
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if abs(low) > _TINY**2 else (0.0, 1.0)
    unit = _round_unit(high / count - low / count)
    first, last = math.floor(low / unit), math.ceil(high / unit)
    return [unit * i for i in range(first, last + 1)]


def _round_unit(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)


def number(value: float) -> str:
    """A number of few characters: 0.25, 12.5k, 3.2M, 1e-07."""
    size = abs(value)
    for least, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if least <= size < 1000 * least:
            return f"{value / least:.5g}{unit}"
    return f"{value:.5g}"


def _time_axis(times: Range, width: int) -> str:
    """Local times, evenly spaced, the first at the left end and the last at the right one."""
    count = max(2, width // (2 * _TICK_WIDTH) + 1)
    line = ""
    for i in range(count):
        part = i / (count - 1)
        text = _clock(times.low + part * (times.high - times.low), times.high - times.low)
        line = line.ljust(round(part * (width - len(text)))) + text
    return line


def _clock(seconds: float, span: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds).astimezone()
    return moment.strftime("%H:%M:%S" if span < 3600 else "%H:%M" if span < 86_400 else "%m-%d %H:%M")
