"""Lines of the InfluxDB line protocol in columns: those of the usual form, without quotes and backslashes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.model.arrays import Bools, Floats, Int64s, UInt8s
from streamgauge.wire.imported import milliseconds_of, values_of, words
from streamgauge.wire.influx_lines import BOOLEANS, MAX_FIELDS, MAX_STAMP_NS, Precision

_COMMA, _EQUALS, _SPACE, _NEWLINE = 1, 2, 3, 4
_KINDS = np.zeros(256, np.uint8)
_KINDS[list(b",= \n")] = (_COMMA, _EQUALS, _SPACE, _NEWLINE)
_ODD_HEADS = list(b"# \t\n\x00")
_NANOSECONDS_OF_MS = Precision.MILLISECONDS.value


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What lines of the usual form say. lines: which of the block these are, from 0, ascending. spellings: of the
    series of each: key, space, names of the fields with commas between them. counts: of its fields; values: of all
    fields, one line's behind the other's. times: ms. odd: lines that are to be looked at alone, ascending."""

    lines: Int64s
    spellings: Sequence[bytes]
    counts: Int64s
    times: Int64s
    values: Floats
    odd: Int64s


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    """Where separators stand. at: their places, kinds: which they are, lines: of which line each is. starts: where each
    line begins, ends: its line feed. keys: where its key ends, fields: where its fields do; these mean something where
    it is `good`, which is where the line looks like a usual one."""

    at: Int64s
    kinds: UInt8s
    lines: Int64s
    starts: Int64s
    ends: Int64s
    keys: Int64s
    fields: Int64s
    good: Bools

    @staticmethod
    def of(raw: UInt8s) -> _Marks:
        """raw: whole lines."""
        kinds = _KINDS[raw]
        at = np.flatnonzero(kinds)
        kinds = kinds[at]
        newlines = np.flatnonzero(kinds == _NEWLINE)
        ends = at[newlines]
        starts = np.concatenate(([0], ends[:-1] + 1))
        lines = np.repeat(np.arange(len(ends)), np.diff(np.concatenate(([-1], newlines))))
        spaces = np.flatnonzero(kinds == _SPACE)
        counts = np.bincount(lines[spaces], minlength=len(ends))
        first = np.cumsum(counts) - counts  # of the line's spaces, the number of the first
        places = np.concatenate((at[spaces], [0, 0]))
        good = (counts == 1) | (counts == 2)
        good &= ~np.isin(raw[starts], _ODD_HEADS) & (raw[np.maximum(ends - 1, 0)] != ord("\r"))
        keys = places[np.where(good, first, 0)]
        fields = np.where(counts == 2, places[np.where(counts == 2, first + 1, 0)], ends)
        good &= (keys > starts) & ((counts == 1) | (ends > fields + 1))
        return _Marks(at, kinds, lines, starts, ends, keys, fields, good)


def columns_of(block: bytes, precision: Precision, now: int) -> Columns:
    """Read whole lines. now: ms, the time of lines without one."""
    raw = np.frombuffer(block, np.uint8)
    marks = _Marks.of(raw)
    good = marks.good
    equals = _pairs(marks, good)
    starts, places = marks.at[equals - 1] + 1, marks.at[equals]
    value_starts, stops = places + 1, marks.at[equals + 1]
    lines = marks.lines[equals]
    good[lines[(starts == places) | (value_starts == stops)]] = False
    times = _times(block, marks, good, precision, now)
    values, names = _values(block, raw, good, lines, (starts, places, value_starts, stops))
    kept = good[lines]
    if not kept.all():
        lines, values, names = lines[kept], values[kept], names.filter(pa.array(kept))
    used = np.flatnonzero(good)
    counts = np.bincount(lines, minlength=len(good))[used]
    spellings = _spellings(block, marks, used, counts, names)
    return Columns(used, spellings, counts, times[used], values, np.flatnonzero(~good))


def _pairs(marks: _Marks, good: Bools) -> Int64s:
    """Which marks are the equals signs of fields. Lines whose fields do not look like such are no longer good."""
    inside = good[marks.lines] & (marks.at > marks.keys[marks.lines]) & (marks.at < marks.fields[marks.lines])
    chosen = np.flatnonzero(inside)
    lines = marks.lines[chosen]
    counts = np.bincount(lines, minlength=len(good))
    rank = np.arange(len(chosen)) - (np.cumsum(counts) - counts)[lines]
    is_equals = rank % 2 == 0
    good[lines[is_equals != (marks.kinds[chosen] == _EQUALS)]] = False
    good &= (counts % 2 == 1) & (counts < 2 * MAX_FIELDS)
    equals: Int64s = chosen[is_equals & good[lines]]
    return equals


def _times(block: bytes, marks: _Marks, good: Bools, precision: Precision, now: int) -> Int64s:
    """Of each line, ms. Lines whose time is none are no longer good."""
    times = np.full(len(good), now, np.int64)
    lines = np.flatnonzero(good & (marks.fields < marks.ends))
    if not len(lines):
        return times
    (texts,) = words(block, _edges(block, marks.fields[lines] + 1, marks.ends[lines]), 2, 0)
    stamps, missing = milliseconds_of(texts)
    limit = MAX_STAMP_NS // precision.value
    wrong = (stamps > limit) | (stamps < -limit)
    if missing is not None:
        wrong |= missing
    good[lines[wrong]] = False
    stamps = np.where(wrong, 0, stamps)
    if precision.value < _NANOSECONDS_OF_MS:
        times[lines] = stamps // (_NANOSECONDS_OF_MS // precision.value)
    else:
        times[lines] = stamps * (precision.value // _NANOSECONDS_OF_MS)
    return times


def _values(
    block: bytes, raw: UInt8s, good: Bools, lines: Int64s, places: tuple[Int64s, Int64s, Int64s, Int64s]
) -> tuple[Floats, Any]:
    """The values of fields, and their names as an Arrow array. Lines of which one is no number are no longer good.

    places: where each name begins and ends, and where each value does.
    """
    name_starts, name_stops, starts, stops = places
    last = raw[stops - 1]
    integral = ((last == ord("i")) | (last == ord("u"))) & (stops > starts + 1)
    edges = _edges(block, name_starts, name_stops, starts, stops - integral)
    names, texts = words(block, edges, 4, 0, 2)
    decimal = ((last >= ord("0")) & (last <= ord("9"))) | (last == ord("."))
    values, wrong = np.zeros(len(last)), np.zeros(len(last), np.bool_)
    for which, convert in ((decimal, values_of), (integral, milliseconds_of), (~(decimal | integral), _truths)):
        if not which.any():
            continue
        numbers, missing = convert(texts if which.all() else texts.filter(pa.array(which)))
        values[which] = numbers
        if missing is not None:
            wrong[which] = missing
    wrong |= ~np.isfinite(values) | (raw[starts] == ord("+")) | ((last == ord("u")) & (raw[starts] == ord("-")))
    good[lines[wrong]] = False
    return values, names


def _truths(texts: Any) -> tuple[Floats, Bools]:
    """Values of what is true or false, and where it is neither."""
    distinct = texts.cast(pa.binary()).dictionary_encode()
    known = np.array([BOOLEANS.get(text, np.nan) for text in distinct.dictionary.to_pylist()], np.float64)
    values: Floats = known[distinct.indices.to_numpy(zero_copy_only=False)]
    return values, np.isnan(values)


def _spellings(block: bytes, marks: _Marks, lines: Int64s, counts: Int64s, names: Any) -> list[bytes]:
    """How the series of each line are spelled. names: of the fields of all of them."""
    if not len(lines):
        return []
    (texts,) = words(block, _edges(block, marks.starts[lines], marks.keys[lines]), 2, 0)
    encoded = names.cast(pa.binary()).dictionary_encode()
    known = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    firsts = np.cumsum(counts) - counts
    endings: list[bytes] = [b""] * len(lines)
    for count in np.unique(counts).tolist():
        rows = np.flatnonzero(counts == count)
        layouts, which = _distinct(codes[firsts[rows][:, None] + np.arange(count)])
        spelled = [b" " + b",".join([known[code] for code in layout]) for layout in layouts.tolist()]
        for row, layout in zip(rows.tolist(), which.tolist(), strict=True):
            endings[row] = spelled[layout]
    return list(map(operator.add, texts.cast(pa.binary()).to_pylist(), endings))


def _distinct(rows: Any) -> tuple[Any, Int64s]:
    """The distinct rows of a matrix, and for each row which it is. As numpy has it, a row becomes a structure with a
    field for each column, which takes longer to make than all the rest; here it is bytes."""
    whole = np.ascontiguousarray(rows)
    raw = whole.view(np.dtype((np.void, whole.shape[1] * whole.itemsize))).ravel()
    _, first, which = np.unique(raw, return_index=True, return_inverse=True)
    return whole[first], which


def _edges(block: bytes, *places: Int64s) -> Int64s:
    """Where pieces begin, as `words` takes them: those of an item are one behind the other."""
    edges = np.empty(len(places) * len(places[0]) + 1, np.int64)
    for which, where in enumerate(places):
        edges[which : -1 : len(places)] = where
    edges[-1] = len(block)
    return edges
