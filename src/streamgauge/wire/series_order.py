"""The order in which the series of a file follow one another: a file that is ordered by time repeats it at each step.

Where a series comes again, what followed it last time is compared with what follows it now, as bytes and a stretch of
lines at once, so that none of them is looked up. This is exact: the bytes that spelled a series before spell it now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.wire.byte_strings import byte_strings, parts
from streamgauge.wire.line_words import Lines, are_equal, pieces

MAX_BYTES = 64 << 20
"""Of what is remembered: 300,000 series of nine labels. When it is more, it begins anew."""
_ENTRY_BYTES, _STRETCH_BYTES = 24, 1000  # of a series, and of a stretch, beside the texts
MIN_LINES, _MAX_SHORT = 256, 4
"""Comparisons that find fewer lines alike cost more than to look these up: after some of them the rest of a block is
looked up, and is a stretch of its own then."""
_OFFSET_BITS = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """Lines that followed one another. pieces: their series, and an empty text behind each. sizes: bytes of the series.
    codes: their numbers."""

    pieces: pa.BinaryArray
    sizes: Int64s
    codes: Int64s


class SeriesOrder:
    """What followed what so far. number_of: the number of the series that a text spells, None where it is new. size:
    bytes of what is remembered."""

    def __init__(self, number_of: Callable[[bytes], int | None]) -> None:
        self._number_of = number_of
        self.forget()

    def forget(self) -> None:
        self._stretches: list[_Stretch] = []
        self._places = np.empty(0, np.int64)  # by number of a series: stretch and line in it, or -1
        self.size = 0

    def learn(self, series: pa.BinaryArray, codes: Int64s) -> None:
        """Remember consecutive series, whose spellings and numbers these are."""
        if not len(codes):
            return
        data, offsets = parts(series)
        if self.size > MAX_BYTES:
            self.forget()
        self.size += len(data) + _ENTRY_BYTES * len(codes) + _STRETCH_BYTES
        highest = int(codes.max())
        if highest >= len(self._places):
            more = np.full(max(highest + 1, 2 * len(self._places)) - len(self._places), -1)
            self._places = np.concatenate((self._places, more))
        first = len(self._stretches) << _OFFSET_BITS
        self._places[codes[::-1]] = np.arange(first, first + len(codes))[::-1]  # of equal ones the first is kept
        texts = byte_strings(data, np.repeat(offsets, 2)[1:])
        self._stretches.append(_Stretch(texts, np.diff(offsets), codes.astype(np.int32)))

    def follow(self, lines: Lines) -> tuple[Int64s, Int64s]:
        """The numbers of the series of the first of the lines, and where their texts end: of as many as go on in the
        order that is known."""
        codes, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        at = short = 0
        while at < len(lines) and short <= _MAX_SHORT:
            place = self._place_of(lines.text(at))
            if place is None:
                break
            stretch, offset = self._stretches[place >> _OFFSET_BITS], place & ((1 << _OFFSET_BITS) - 1)
            some = lines.take(slice(at, at + len(stretch.codes) - offset))
            stops = np.minimum(some.starts + stretch.sizes[offset : offset + len(some)], some.stops)
            alike = are_equal(pieces(some, stops), stretch.pieces.slice(2 * offset, 2 * len(some)))
            count = len(some) if alike.all() else int(np.argmin(alike))
            codes.append(stretch.codes[offset : offset + count])
            ends.append(stops[:count])
            at += count
            short += count < MIN_LINES
            if not count:
                break
        return np.concatenate(codes), np.concatenate(ends)

    def _place_of(self, line: bytes) -> int | None:
        """Where the series of a line stands in what is known."""
        number = self._number_of(line.rsplit(None, 2)[0]) if line else None
        if number is None or number >= len(self._places):
            return None
        place = int(self._places[number])
        return place if place >= 0 else None
