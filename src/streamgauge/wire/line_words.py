"""Lines of samples cut into words, all lines of a block at a time: `series value timestamp`, words between separators.

A separator is any byte up to the space; a line where one of the two is no white space is none of these. A value and a
timestamp have none in them, so that the last two separators of a line say where they stand; in the series before them
anything may occur between quotes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Bools, Int64s, UInt8s
from streamgauge.wire.byte_search import places_of
from streamgauge.wire.byte_strings import byte_strings

SPACE, NEWLINE, HASH = 32, 10, 35
_IS_WHITE = np.isin(np.arange(256), list(b" \t\r\v\f"))
_MAX_WIDTHS = 8
"""Lengths of timestamps among some lines: digits of a fraction that are zeros may be left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Some whole lines of a block. numbers: theirs in the block, from 0, ascending. starts, stops: where each begins,
    and its line feed."""

    block: bytes | memoryview
    raw: UInt8s
    numbers: Int64s
    starts: Int64s
    stops: Int64s

    @staticmethod
    def of(block: bytes | memoryview) -> Lines:
        raw = np.frombuffer(block, np.uint8)
        stops = places_of(NEWLINE, raw)
        starts = np.empty_like(stops)
        starts[:1] = 0
        np.add(stops[:-1], 1, out=starts[1:])
        return Lines(block, raw, np.arange(len(stops)), starts, stops)

    def __len__(self) -> int:
        return len(self.stops)

    def heads(self) -> UInt8s:
        """The first byte of each."""
        return self.raw[self.starts]

    def text(self, at: int) -> bytes:
        return bytes(self.block[self.starts[at] : self.stops[at]])

    def take(self, which: Bools | slice) -> Lines:
        return Lines(self.block, self.raw, self.numbers[which], self.starts[which], self.stops[which])


def samples_in(text: bytes) -> int:
    """How many lines of a text are neither empty nor comments: its samples, where it is valid."""
    heads = Lines.of(text if text.endswith(b"\n") else text + b"\n").heads()
    return int(np.count_nonzero((heads != NEWLINE) & (heads != HASH)))


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Lines, and where the separators stand before their values, and before their timestamps."""

    lines: Lines
    value_at: Int64s
    time_at: Int64s

    def take(self, which: Bools) -> Words:
        return self if which.all() else Words(self.lines.take(which), self.value_at[which], self.time_at[which])


def last_words(lines: Lines) -> Words:
    """Of those lines that have words before, between and behind the last two separators, and nothing that may be an
    exemplar."""
    if not len(lines):
        return Words(lines, lines.starts, lines.starts)
    begin, end = int(lines.starts[0]), int(lines.stops[-1]) + 1
    raw = lines.raw[begin:end]
    marks = np.flatnonzero(raw <= SPACE)
    ends = np.flatnonzero(raw[marks] == NEWLINE)[lines.numbers - lines.numbers[0]]
    value_at, time_at = (marks[np.maximum(ends - back, 0)] + begin for back in (2, 1))
    usual = (ends >= 2) & (value_at > lines.starts) & (time_at > value_at + 1) & (lines.stops > time_at + 1)
    usual &= _IS_WHITE[lines.raw[value_at]] & _IS_WHITE[lines.raw[time_at]]
    exemplars = _exemplars(lines, begin, end)
    at = np.searchsorted(lines.stops, exemplars)
    usual[at[exemplars > lines.starts[at]]] = False
    return Words(lines, value_at, time_at).take(usual)


def _exemplars(lines: Lines, begin: int, end: int) -> Int64s:
    """Where what may be one begins, from the first line to the last, or between them."""
    hashes = np.flatnonzero(lines.raw[begin + 1 : end - 1] == HASH) + begin + 1
    exemplars: Int64s = hashes[(lines.raw[hashes - 1] == SPACE) & (lines.raw[hashes + 1] == SPACE)]
    return exemplars


def words_behind(lines: Lines, value_at: Int64s) -> tuple[Words, Bools]:
    """Of those lines, whose series end at `value_at`, that have a separator there and a word on both sides of another
    one; and which of the lines these are. More separators than these may be in the words: they are in no number, which
    is for their reader to see."""
    raw, stops = lines.raw, lines.stops
    time_at = np.full(len(lines), -1)
    left = np.flatnonzero(_IS_WHITE[raw[value_at]] & (value_at + 1 < stops))
    for _ in range(_MAX_WIDTHS):
        if not len(left):
            break
        one = left[0]
        marks = np.flatnonzero(raw[value_at[one] + 1 : stops[one]] <= SPACE)
        if not len(marks):
            left = left[1:]
            continue
        found = stops[left] - (stops[one] - value_at[one] - 1 - marks[-1])
        hit = (found > value_at[left] + 1) & (found + 1 < stops[left]) & _IS_WHITE[raw[found]]
        time_at[left[hit]] = found[hit]
        left = left[~hit]
    good = time_at >= 0
    return Words(lines, value_at, time_at).take(good), good


def pieces(lines: Lines, stops: Int64s) -> pa.BinaryArray:
    """What stands in each line before `stops`, and behind that up to the next line, as two byte strings a line."""
    edges = np.empty(2 * len(lines) + 1, np.int64)
    edges[:-1:2], edges[1::2], edges[-1] = lines.starts, stops, len(lines.block)
    return byte_strings(lines.raw, edges)


def are_equal(some: pa.BinaryArray, others: pa.BinaryArray) -> Bools:
    """Of every second byte string whether it is the same in both."""
    equal: Bools = pc.equal(some, others).to_numpy(zero_copy_only=False)
    return equal[::2]
