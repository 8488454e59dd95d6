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
from streamgauge.model.arrays import Bools, Floats, Int32s, Int64s, UInt8s
from streamgauge.wire.byte_search import places_of
from streamgauge.wire.exposition_text import read_value

CHUNK_LINES = 8192
"""Lines that are compared at once: about a millisecond of work. If one of them moved, all are read one by one."""

MAX_LINE_BYTES = 1 << 20
"""A longer line is no exposition; the labels of a series have 128 KiB at most."""

_NEWLINE, _SPACE = 10, 32
_WINDOW_BYTES = 1 << 20
_TO_FLOAT = pc.CastOptions.safe(pa.float64())


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

    at: Int64s | slice
    bitmap: UInt8s

    @staticmethod
    def of(at: Int64s | slice, pieces: int) -> Words:
        flags = np.zeros(pieces, np.bool_)
        flags[at] = True
        return Words(at, np.packbits(flags, bitorder="little"))


@dataclass(slots=True, eq=False)
class Layout:
    """Of some lines, each ended by a newline.

    stamped: of the lines that give a sample, which have a timestamp; None where none has. sizes: of the pieces between
    the words, in bytes. between, values, stamps: which of the pieces are that; None where none is a timestamp. pieces:
    the text that was read last, cut at both ends of each value and timestamp, so that every second piece is a word.
    last: the values in it, which are not read again where their text is the same; None when it was not read here.
    """

    lines: int
    valued: Int64s  # numbers of the lines that give a sample, ascending
    stamped: Bools | None
    sizes: Int32s
    between: Words
    values: Words
    stamps: Words | None
    pieces: pa.BinaryArray
    last: Floats | None = None

    def texts_between(self) -> list[bytes]:
        """The bytes before the first word, between the words, and behind the last one."""
        return cast("list[bytes]", self.pieces.to_pylist()[::2])


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A text in pieces as a layout says. equal: a bitmap of those that are as in the layout."""

    pieces: pa.BinaryArray
    equal: UInt8s


def lines_of(text: bytes) -> Lines:
    return Lines(text, 0, places_of(_NEWLINE, np.frombuffer(text, np.uint8)))


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
            found = places_of(_NEWLINE, raw[seen : seen + _WINDOW_BYTES])
            ends = np.concatenate((ends, found + seen)) if seen else found
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
    edges = np.empty(2 * len(starts) + 2, np.int32)
    edges[0], edges[-1] = 0, len(text)
    edges[1:-1:2], edges[2:-1:2] = starts, stops
    if (edges[1:] < edges[:-1]).any():
        return None
    count = len(edges) - 1
    values: Int64s | slice = slice(1, None, 2)
    stamps = None
    if stamped is not None:
        words_at = np.arange(1, count, 2)
        is_stamp = _is_stamp(len(valued), stamped)
        values, stamps = words_at[~is_stamp], Words.of(words_at[is_stamp], count)
    between, sizes = Words.of(slice(0, None, 2), count), np.diff(edges)[::2]
    pieces = _pieces(edges, text)
    return Layout(len(lines), valued, stamped, sizes, between, Words.of(values, count), stamps, pieces)


def match(layout: Layout, lines: Lines) -> Cut | None:
    """Lines that are as their layout says, cut into words; None when they are not.

    Words end where lines do, or at the last separator before that. From there on what lies between two words has to
    have the length, and then the bytes, that it has in the layout.
    """
    if len(lines) != layout.lines:
        return None
    marks = None if layout.stamped is None else _marks(lines)
    stops = _stops(lines, layout.valued, layout.stamped, marks)
    text = lines.text
    edges = np.empty(2 * len(stops) + 2, np.int32)
    edges[0], edges[-1] = 0, len(text)
    edges[2:-1:2] = stops
    np.add(edges[:-2:2], layout.sizes[:-1], out=edges[1:-1:2])
    if stops[-1] + layout.sizes[-1] != len(text) or (edges[1:-1:2] > edges[2:-1:2]).any():
        return None
    pieces = _pieces(edges, text)
    equal = np.frombuffer(_content(pc.equal(pieces, layout.pieces)), np.uint8, len(layout.between.bitmap))
    if (layout.between.bitmap & ~equal).any():
        return None
    return Cut(pieces, equal)


def _marks(lines: Lines) -> Int64s:
    """Where separators stand, from the first line on."""
    size = lines.stop - lines.start
    return np.flatnonzero(np.frombuffer(lines.body, np.uint8, size, lines.start) <= _SPACE)


def _stops(lines: Lines, valued: Int64s, stamped: Bools | None, marks: Int64s | None) -> Int64s:
    """Where the words end, from the first line on."""
    ends = lines.ends[valued]
    if lines.start:
        ends -= lines.start
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


def _pieces(edges: Int32s, text: bytes) -> pa.BinaryArray:
    """edges: where pieces begin, and where the last one ends."""
    buffers = [None, pa.py_buffer(edges.data), pa.py_buffer(text)]
    return cast("pa.BinaryArray", pa.Array.from_buffers(pa.binary(), len(edges) - 1, buffers, 0))


def _texts(pieces: pa.BinaryArray, bitmap: UInt8s) -> pa.StringArray:
    """The pieces with all null but those of the bitmap."""
    buffers = [pa.py_buffer(bitmap.data), *pieces.buffers()[1:]]
    return cast("pa.StringArray", pa.Array.from_buffers(pa.utf8(), len(pieces), buffers))


def _content(array: pa.Array[Any]) -> memoryview:
    """The bytes of an array of numbers or flags."""
    content = array.buffers()[1]
    assert content is not None
    return memoryview(content)


def read_values(layout: Layout, cut: Cut) -> Floats | None:
    """All values; None when some text is none. Any NaN becomes the one quiet NaN, so that none is a stale marker.

    The layout remembers them, and next time those whose text is the same are not read.
    """
    last, words = layout.last, layout.values
    fresh = words.bitmap if last is None else words.bitmap & ~cut.equal
    if last is None or fresh.any():
        is_fresh = np.unpackbits(fresh, count=len(cut.pieces), bitorder="little")[words.at].view(np.bool_)
        read = _numbers(cut, fresh, words.at, is_fresh)
        if read is None:
            return None
        last = read if last is None else np.where(is_fresh, read, last)
    layout.pieces, layout.last = cut.pieces, last
    return last


def _numbers(cut: Cut, fresh: UInt8s, at: Int64s | slice, is_fresh: Bools) -> Floats | None:
    """The values of the words that are fresh, a bitmap of pieces and the same for each word; anything for others."""
    texts = _texts(cut.pieces, fresh)
    try:
        numbers = _content(pc.call_function("cast", [texts], _TO_FLOAT))
    except pa.ArrowInvalid:
        return _one_by_one(texts, is_fresh)
    values: Floats = np.frombuffer(numbers, np.float64, len(texts))[at]
    if not np.isfinite(values).all():
        odd = ~np.isfinite(values) & is_fresh
        words = set(texts.cast(pa.binary()).take(np.arange(len(texts))[at][odd]).to_pylist())
        try:
            for word in words:
                read_value(word or b"")
        except BadInput:
            return None
        values = np.where(np.isnan(values), np.nan, values)
    return values


def _one_by_one(texts: pa.StringArray, is_fresh: Bools) -> Floats | None:
    words = texts.cast(pa.binary()).drop_null().to_pylist()
    values = np.zeros(len(is_fresh))
    try:
        values[is_fresh] = [read_value(word or b"") for word in words]
    except BadInput:
        return None
    return values


def read_stamps(layout: Layout, cut: Cut) -> Int64s | None:
    """The timestamps, in ms, digits only; None when there are none, or when some text is none."""
    if layout.stamps is None:
        return None
    texts = _texts(cut.pieces, layout.stamps.bitmap).drop_null()
    written = texts.buffers()[2]
    digits = np.frombuffer(b"" if written is None else memoryview(written), np.uint8)
    if ((digits < 48) | (digits > 57)).any():
        return None
    try:
        stamps: Int64s = texts.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return stamps
