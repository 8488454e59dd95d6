"""A scrape repeats the text of the one before it, but for the values: what repeats is compared, values are cut out.

A layout is what is known of some consecutive lines: where values and timestamps stand, and the bytes between them. If
the bytes between them are the same again, so are the series: then all values are read at once, and nothing is parsed
or looked up. Both are exact: the text before a value is compared byte for byte, and text that spells a series, as a
parser found when it read the layout, spells the same series whatever value follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.wire.exposition_text import read_value

CHUNK_LINES = 4096
"""Lines that are compared at once: half a millisecond to a millisecond of work."""

MAX_LINE_BYTES = 1 << 20
"""A longer line is no exposition; the labels of a series have 128 KiB at most."""

_NEWLINE, _SPACE = 10, 32
_WINDOW_BYTES = 1 << 20


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


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Some consecutive lines, each ended by a newline.

    marks: where separators stand, which are all bytes up to the space. ends: which of the marks are newlines.
    """

    text: bytes
    marks: Int64s
    ends: Int64s

    def __len__(self) -> int:
        return len(self.ends)


def lines_of(text: bytes) -> Lines:
    raw = np.frombuffer(text, np.uint8)
    marks = np.flatnonzero(raw <= _SPACE)
    return Lines(text, marks, np.flatnonzero(raw[marks] == _NEWLINE))


def chunks_of(body: bytes) -> Iterator[Lines]:
    """The body in runs of CHUNK_LINES lines; a newline at its end is supplied. Raises BadInput for a line that is too
    long."""
    if body and not body.endswith(b"\n"):
        body += b"\n"
    start, window = 0, _WINDOW_BYTES
    while start < len(body):
        piece = lines_of(body[start : start + window] if start or window < len(body) else body)
        last = start + len(piece.text) == len(body)
        if len(piece) < CHUNK_LINES and not last:
            if window >= CHUNK_LINES * MAX_LINE_BYTES:
                raise too_long()
            window *= 2
            continue
        done = 0
        while len(piece) >= CHUNK_LINES or (last and len(piece)):
            chunk, piece = _split(piece)
            done += len(chunk.text)
            yield chunk
        start += done


def _split(lines: Lines) -> tuple[Lines, Lines]:
    """The first CHUNK_LINES lines, and the rest."""
    if len(lines) <= CHUNK_LINES:
        chunk, rest = lines, Lines(b"", lines.marks[:0], lines.ends[:0])
    else:
        mark = int(lines.ends[CHUNK_LINES - 1]) + 1
        stop = int(lines.marks[mark - 1]) + 1
        chunk = Lines(lines.text[:stop], lines.marks[:mark], lines.ends[:CHUNK_LINES])
        rest = Lines(lines.text[stop:], lines.marks[mark:] - stop, lines.ends[CHUNK_LINES:] - mark)
    if len(chunk.text) > MAX_LINE_BYTES and np.diff(chunk.marks[chunk.ends], prepend=-1).max() > MAX_LINE_BYTES:
        raise too_long()
    return chunk, rest


def too_long() -> BadInput:
    return BadInput(f"a line is longer than {MAX_LINE_BYTES} bytes; this is no exposition of metrics")


def cut(lines: Lines, valued: Int64s, stamped: Bools | None) -> Cut | None:
    """Cut the last word of each valued line out, and the word before it of stamped ones; words are what separators
    separate. None when there are no such words."""
    if not len(valued):
        return None
    marks, ends = lines.marks, lines.ends
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
    edges[0], edges[-1] = 0, len(lines.text)
    edges[1:-1:2], edges[2:-1:2] = starts, stops
    if (edges[1:] < edges[:-1]).any():
        return None
    buffers = [None, pa.py_buffer(edges.astype(np.int32).tobytes()), pa.py_buffer(lines.text)]
    pieces = pa.Array.from_buffers(pa.binary(), len(edges) - 1, buffers)
    even, odd = _every_second(len(pieces))
    between = cast("pa.BinaryArray", pieces.take(even))
    if stamped is None:
        return Cut(between, _text(pieces, odd), None)
    words_at = np.arange(1, len(pieces), 2)
    is_value = order < len(valued)
    return Cut(between, _text(pieces, words_at[is_value]), _text(pieces, words_at[~is_value]))


@lru_cache(maxsize=64)
def _every_second(count: int) -> tuple[Any, Any]:
    """0, 2, 4, … and 1, 3, 5, … below `count`, as Arrow arrays: most scrapes are cut into few different numbers."""
    return pa.array(np.arange(0, count, 2, dtype=np.int32)), pa.array(np.arange(1, count, 2, dtype=np.int32))


def _text(pieces: pa.Array[Any], at: Any) -> pa.StringArray:
    taken = pieces.take(at)
    return cast("pa.StringArray", pa.Array.from_buffers(pa.utf8(), len(taken), taken.buffers()))


def layout_of(lines: Lines, valued: Int64s, stamped: Bools | None) -> Layout | None:
    """The layout of lines that a parser has read; None when words of some are not where `cut` looks for them."""
    pieces = cut(lines, valued, stamped)
    return None if pieces is None else Layout(len(lines), valued, stamped, pieces.between)


def match(layout: Layout, lines: Lines) -> Cut | None:
    """The words of lines that are as their layout says; None when they are not."""
    if len(lines) != layout.lines:
        return None
    pieces = cut(lines, layout.valued, layout.stamped)
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
