"""A scrape repeats the text of the one before it, but for the values: what repeats is compared, values are cut out.

A layout is what is known of some consecutive lines: where values and timestamps stand, and the bytes between them. If
the bytes between them are the same again, so are the series: then all values are read at once, and nothing is parsed
or looked up. Both are exact: the text before a value is compared byte for byte, and text that spells a series, as a
parser found when it read the layout, spells the same series whatever value follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.wire.exposition_text import read_value

CHUNK_LINES = 4096
"""Lines that are compared at once: half a millisecond to a millisecond of work."""

_NEWLINE, _SPACE = 10, 32


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Of some lines, each ended by a newline.

    valued: numbers of the lines that give a sample, ascending. stamped: of those, which have a timestamp; None where
    none has. between: the bytes before the first value, between the values, and after the last one, newlines and
    timestamps' separators included.
    """

    lines: int
    valued: Int64s
    stamped: Bools | None
    between: pa.BinaryArray


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What stands between values, and the values: text of each valued line, and of each stamped one."""

    between: pa.BinaryArray
    values: pa.StringArray
    stamps: pa.StringArray | None


def cut(chunk: bytes, lines: int, valued: Int64s, stamped: Bools | None) -> Cut | None:
    """Cut the last word of each valued line out, and the word before it of stamped ones; words are what single spaces
    separate. None when the chunk has not as many lines, or no such words."""
    text = np.frombuffer(chunk, np.uint8)
    marks = np.flatnonzero((text == _NEWLINE) | (text == _SPACE))
    ends = np.flatnonzero(text[marks] == _NEWLINE)
    if len(ends) != lines or not len(valued):
        return None
    ends = ends[valued]
    words = 1 if stamped is None else 1 + stamped
    if ends[0] < (1 if stamped is None else 1 + int(stamped[0])):
        return None
    stops = marks[ends] if stamped is None else marks[ends - stamped]
    starts = marks[ends - words] + 1
    if stamped is not None:
        stamp_ends = ends[stamped]
        starts = np.concatenate((starts, marks[stamp_ends - 1] + 1))
        stops = np.concatenate((stops, marks[stamp_ends]))
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, len(chunk)
    edges[1:-1:2], edges[2:-1:2] = starts, stops
    if (edges[1:] < edges[:-1]).any():
        return None
    buffers = [None, pa.py_buffer(edges.astype(np.int32).tobytes()), pa.py_buffer(chunk)]
    pieces = pa.Array.from_buffers(pa.binary(), len(edges) - 1, buffers)
    between = cast("pa.BinaryArray", pieces.take(np.arange(0, len(pieces), 2)))
    words_at = np.arange(1, len(pieces), 2)
    if stamped is None:
        return Cut(between, _text(pieces, words_at), None)
    is_value = order < len(valued)
    return Cut(between, _text(pieces, words_at[is_value]), _text(pieces, words_at[~is_value]))


def _text(pieces: pa.Array[Any], at: Int64s) -> pa.StringArray:
    taken = pieces.take(at)
    return cast("pa.StringArray", pa.Array.from_buffers(pa.utf8(), len(taken), taken.buffers()))


def layout_of(chunk: bytes, lines: int, valued: Int64s, stamped: Bools | None) -> Layout | None:
    """The layout of lines that a parser has read; None when words of some are not where `cut` looks for them."""
    pieces = cut(chunk, lines, valued, stamped)
    return None if pieces is None else Layout(lines, valued, stamped, pieces.between)


def match(layout: Layout, chunk: bytes) -> Cut | None:
    """The words of a chunk that is as its layout says; None when it is not."""
    pieces = cut(chunk, layout.lines, layout.valued, layout.stamped)
    if pieces is None or not pieces.between.equals(layout.between):
        return None
    return pieces


def read_values(texts: pa.StringArray) -> Floats | None:
    """All values; None when some text is none. Any NaN becomes the one quiet NaN, so that none is a stale marker."""
    try:
        values: Floats = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return _one_by_one(texts)
    odd = np.flatnonzero(~np.isfinite(values))
    if len(odd):
        words = texts.take(odd).cast(pa.binary()).to_pylist()
        try:
            for word in set(words):
                read_value(word or b"")
        except BadInput:
            return None
        values = np.where(np.isnan(values), np.nan, values)
    return values


def _one_by_one(texts: pa.StringArray) -> Floats | None:
    try:
        return np.array([read_value(word or b"") for word in texts.cast(pa.binary()).to_pylist()], np.float64)
    except BadInput:
        return None


def read_stamps(texts: pa.StringArray) -> Int64s | None:
    """Timestamps in ms, digits only; None when some text is none."""
    written = texts.buffers()[2]
    digits = np.frombuffer(b"" if written is None else memoryview(written), np.uint8)
    if ((digits < 48) | (digits > 57)).any():
        return None
    try:
        stamps: Int64s = texts.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return stamps
