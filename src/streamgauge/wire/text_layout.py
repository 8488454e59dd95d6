"""A scrape repeats the text of the one before it, but for the values: what repeats is compared, values are cut out.

A layout is what is known of some consecutive lines: where values and timestamps stand, and the bytes between them. If
the bytes between them are the same again, so are the series: then all values are read at once, and nothing is parsed
or looked up. Both are exact: the text before a value is compared byte for byte, and text that spells a series, as a
parser found when it read the layout, spells the same series whatever value follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.wire.exposition_text import read_value

CHUNK_LINES = 8192
"""Lines that are compared at once: about a millisecond of work. If one of them moved, all are read one by one."""

MAX_LINE_BYTES = 1 << 20
"""A longer line is no exposition; the labels of a series have 128 KiB at most."""

_NEWLINE, _SPACE = 10, 32
_WINDOW_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Some consecutive lines of a body, each ended by a newline.

    start: where the first begins. ends: where their newlines stand, in the body.
    """

    body: bytes
    start: int
    ends: Int64s

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def stop(self) -> int:
        return int(self.ends[-1]) + 1 if len(self.ends) else self.start

    @property
    def text(self) -> bytes:
        return self.body[self.start : self.stop]


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Which pieces of a cut text are words of one kind: their numbers, and the same as Arrow's bitmap."""

    at: Int64s
    bitmap: pa.Buffer

    @staticmethod
    def of(at: Int64s, pieces: int) -> Words:
        flags = np.zeros(pieces, np.bool_)
        flags[at] = True
        return Words(at, pa.py_buffer(np.packbits(flags, bitorder="little").tobytes()))


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Of some lines, each ended by a newline.

    stamped: of the lines that give a sample, which have a timestamp; None where none has. pieces: the text that it was
    made of, cut at both ends of each value and timestamp, so that every second piece is a word. sizes: of the pieces
    between the words, in bytes. values, stamps: which of the words are that; None where none is a timestamp.
    """

    lines: int
    valued: Int64s  # numbers of the lines that give a sample, ascending
    stamped: Bools | None
    pieces: pa.BinaryArray
    sizes: Int64s
    values: Words
    stamps: Words | None

    def between(self) -> list[bytes]:
        """The bytes before the first word, between the words, and behind the last one."""
        return cast("list[bytes]", self.pieces.to_pylist()[::2])


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The text of values and timestamps, among pieces that are null; which pieces they are."""

    values: pa.StringArray
    values_at: Int64s
    stamps: pa.StringArray | None
    stamps_at: Int64s | None


def lines_of(text: bytes) -> Lines:
    return Lines(text, 0, np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE))


def chunks_of(body: bytes) -> Iterator[Lines]:
    """The body in runs of CHUNK_LINES lines; a newline at its end is supplied. Raises BadInput for a line that is too
    long."""
    if body and not body.endswith(b"\n"):
        body += b"\n"
    raw = np.frombuffer(body, np.uint8)
    start = seen = 0  # where the next chunk begins, and up to where newlines have been looked for
    ends = np.empty(0, np.int64)
    while start < len(body):
        while len(ends) < CHUNK_LINES and seen < len(body):
            found = np.flatnonzero(raw[seen : seen + _WINDOW_BYTES] == _NEWLINE)
            ends = np.concatenate((ends, found + seen))
            seen = min(seen + _WINDOW_BYTES, len(body))
            _check_lengths(start, ends, seen)
        chunk = Lines(body, start, ends[:CHUNK_LINES])
        yield chunk
        start, ends = chunk.stop, ends[CHUNK_LINES:]


def _check_lengths(start: int, ends: Int64s, seen: int) -> None:
    """Raises BadInput for a line that is too long, be it at its end or not."""
    if seen - start > MAX_LINE_BYTES and np.diff(ends, prepend=start - 1, append=seen - 1).max() > MAX_LINE_BYTES:
        raise BadInput(f"a line is longer than {MAX_LINE_BYTES} bytes; this is no exposition of metrics")


def layout_of(lines: Lines, valued: Int64s, stamped: Bools | None) -> Layout | None:
    """The layout of lines that a parser has read: the last word of a valued line is its value, or its timestamp, and
    then the one before is the value; words are what separators, all bytes up to the space, separate. None when there
    are no such words."""
    if not len(valued):
        return None
    text = lines.text
    marks = _marks(lines)
    last = np.searchsorted(marks, lines.ends[valued] - lines.start)
    words = 1 if stamped is None else 1 + stamped
    if (last < words).any():
        return None
    stops = _stops(lines, valued, stamped, marks)
    starts = marks[last - 1] + 1
    if stamped is not None:
        starts = np.sort(np.concatenate((starts, (marks[last - 2] + 1)[stamped])))
    edges = _edges(starts, stops, len(text))
    if (edges[1:] < edges[:-1]).any():
        return None
    count = len(edges) - 1
    words_at = np.arange(1, count, 2)
    is_stamp = _is_stamp(len(valued), stamped)
    stamps = None if stamped is None else Words.of(words_at[is_stamp], count)
    pieces = _pieces(edges, pa.py_buffer(text))
    sizes = np.diff(edges)[::2].astype(np.int64)
    return Layout(len(lines), valued, stamped, pieces, sizes, Words.of(words_at[~is_stamp], count), stamps)


def match(layout: Layout, lines: Lines) -> Cut | None:
    """The words of lines that are as their layout says; None when they are not.

    Words end where lines do, or at the last separator before that. From there on what lies between two words has to
    have the length, and then the bytes, that it has in the layout.
    """
    if len(lines) != layout.lines:
        return None
    marks = None if layout.stamped is None else _marks(lines)
    stops = _stops(lines, layout.valued, layout.stamped, marks)
    starts = np.concatenate(([0], stops[:-1])) + layout.sizes[:-1]
    size = lines.stop - lines.start
    if stops[-1] + layout.sizes[-1] != size or (starts > stops).any():
        return None
    text = pa.py_buffer(lines.body).slice(lines.start, size)
    pieces = _pieces(_edges(starts, stops, size), text)
    equal = np.frombuffer(_content(pc.equal(pieces, layout.pieces)), np.uint8)
    if not np.unpackbits(equal, count=len(pieces), bitorder="little")[::2].all():
        return None
    values, stamps = layout.values, layout.stamps
    if stamps is None:
        return Cut(_texts(pieces, values), values.at, None, None)
    return Cut(_texts(pieces, values), values.at, _texts(pieces, stamps), stamps.at)


def _marks(lines: Lines) -> Int64s:
    """Where separators stand, from the first line on."""
    size = lines.stop - lines.start
    return np.flatnonzero(np.frombuffer(lines.body, np.uint8, size, lines.start) <= _SPACE)


def _stops(lines: Lines, valued: Int64s, stamped: Bools | None, marks: Int64s | None) -> Int64s:
    """Where the words end, from the first line on."""
    ends = lines.ends[valued] - lines.start
    if stamped is None or marks is None:
        return ends
    before = marks[np.searchsorted(marks, ends[stamped]) - 1]  # that of a line without one is refused later
    is_stamp = _is_stamp(len(valued), stamped)
    last = is_stamp.copy()
    last[~is_stamp] = ~stamped
    stops = np.empty(len(is_stamp), np.int64)
    stops[last] = ends
    stops[~last] = before
    return stops


def _is_stamp(valued: int, stamped: Bools | None) -> Bools:
    """Of each word, in order."""
    flags = np.zeros(valued if stamped is None else valued + int(stamped.sum()), np.bool_)
    if stamped is not None:
        flags[(np.arange(valued) + np.cumsum(stamped))[stamped]] = True
    return flags


def _edges(starts: Int64s, stops: Int64s, size: int) -> Int64s:
    """Where pieces begin, and where the last one ends."""
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, size
    edges[1:-1:2], edges[2:-1:2] = starts, stops
    return edges


def _pieces(edges: Int64s, text: pa.Buffer) -> pa.BinaryArray:
    buffers = [None, pa.py_buffer(edges.astype(np.int32).data), text]
    return cast("pa.BinaryArray", pa.Array.from_buffers(pa.binary(), len(edges) - 1, buffers, 0))


def _texts(pieces: pa.BinaryArray, words: Words) -> pa.StringArray:
    """The pieces with all null but those words."""
    buffers = [words.bitmap, *pieces.buffers()[1:]]
    nulls = len(pieces) - len(words.at)
    return cast("pa.StringArray", pa.Array.from_buffers(pa.utf8(), len(pieces), buffers, nulls))


def _content(array: pa.Array[Any]) -> memoryview:
    """The bytes of an array of numbers or flags."""
    content = array.buffers()[1]
    assert content is not None
    return memoryview(content)


def read_values(cut: Cut) -> Floats | None:
    """All values; None when some text is none. Any NaN becomes the one quiet NaN, so that none is a stale marker."""
    try:
        numbers = _content(cut.values.cast(pa.float64()))
    except pa.ArrowInvalid:
        return _one_by_one(cut)
    values: Floats = np.frombuffer(numbers, np.float64, len(cut.values))[cut.values_at]
    odd = np.flatnonzero(~np.isfinite(values))
    if len(odd):
        words = cut.values.take(cut.values_at[odd]).cast(pa.binary()).to_pylist()
        try:
            for word in set(words):
                read_value(word or b"")
        except BadInput:
            return None
        values = np.where(np.isnan(values), np.nan, values)
    return values


def _one_by_one(cut: Cut) -> Floats | None:
    words = cut.values.cast(pa.binary()).drop_null().to_pylist()
    try:
        return np.array([read_value(word or b"") for word in words], np.float64)
    except BadInput:
        return None


def read_stamps(cut: Cut) -> Int64s | None:
    """The timestamps, in ms, digits only; None when there are none, or when some text is none."""
    if cut.stamps is None or cut.stamps_at is None:
        return None
    texts = cut.stamps.take(cut.stamps_at)
    written = texts.buffers()[2]
    digits = np.frombuffer(b"" if written is None else memoryview(written), np.uint8)
    if ((digits < 48) | (digits > 57)).any():
        return None
    try:
        stamps: Int64s = texts.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return stamps
