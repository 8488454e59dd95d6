"""The Prometheus text format, versions 0.0.4 and 1.0.0: the body of a scrape to columns of samples.

Lines that are as they were in the scrape before, but for their values, are read in columns (`text_layout.py`); of
others, those whose series is known are split and looked up; only the rest is parsed (`exposition_text.py`). All three
give the same result.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.wire.exposition_text import (
    FLOAT_LABELS,
    Note,
    normal_pairs,
    read_note,
    read_sample,
    read_stamp,
    read_value,
)
from streamgauge.wire.scraped import (
    NO_STAMP,
    PAUSE_LINES,
    REFUSED,
    Chunk,
    Columns,
    ScrapeCache,
    Scraped,
    SeriesOf,
    kept_rows,
    sample_limit,
    spread_stamps,
)
from streamgauge.wire.text_layout import Lines, chunks_of, layout_of, match, read_stamps, read_values

_KINDS = (b"", b"counter", b"gauge", b"histogram", b"summary", b"untyped")
_TURN = 2048  # lines looked up before other tasks get their turn: a millisecond


def decode(body: bytes, cache: ScrapeCache, series_of: SeriesOf, limit: int = 0) -> Generator[None, None, Scraped]:
    """Read one scrape; yields now and then, so that other tasks get their turn.

    limit: of samples that are kept; 0 is none. The cache is as it was when this raises BadInput, which names the line.
    """
    return _Decoder(cache, series_of, limit).run(body)


class _Decoder:
    def __init__(self, cache: ScrapeCache, series_of: SeriesOf, limit: int) -> None:
        self.cache = cache
        self.series_of = series_of
        self.limit = limit
        self.kind = 0  # of the TYPE line that was read last
        self.line = 0  # lines read
        self.kept = 0
        self.added = 0
        self.known: list[dict[bytes, int]] | None = None

    def run(self, body: bytes) -> Generator[None, None, Scraped]:
        before = self.cache.chunks
        chunks: list[Chunk] = []
        columns: list[Columns] = []
        same = True
        for number, text in enumerate(chunks_of(body)):
            if number:
                yield
            chunk = before[number] if number < len(before) else None
            read = self._as_before(text, chunk) if chunk is not None else None
            if chunk is None or read is None:
                chunk, read = yield from self._read(text)
                same = False
            self._advance(chunk, len(text))
            chunks.append(chunk)
            columns.append(read)
        same = same and len(chunks) == len(before) and self.cache.distinct
        scraped = kept_rows(self.cache, columns, added=self.added, same=same)
        self.cache.chunks = chunks
        return scraped

    def _advance(self, chunk: Chunk, lines: int) -> None:
        self.line += lines
        self.kept += chunk.kept
        if self.limit and self.kept > self.limit:
            raise sample_limit(self.limit)
        for note in reversed(chunk.notes):
            if note.what == b"TYPE":
                self.kind = _KINDS.index(note.text)
                break

    # ---- in columns -------------------------------------------------------------------------------------------------

    def _as_before(self, text: Lines, chunk: Chunk) -> Columns | None:
        """The columns of a chunk that is as it was, but for its values."""
        layout = chunk.layout
        if layout is None or chunk.kind != self.kind:
            return None
        cut = match(layout, text)
        values = None if cut is None else read_values(layout, cut)
        if cut is None or values is None:
            return None
        stamps: Int64s | None = None
        if layout.stamps is not None:
            read = read_stamps(layout, cut)
            if read is None:
                return None
            stamps = spread_stamps(layout, read)
        return chunk.series, values, stamps

    # ---- line by line -----------------------------------------------------------------------------------------------

    def _read(self, text: Lines) -> Generator[None, None, tuple[Chunk, Columns]]:
        reader = _LineReader((yield from self._known()), self.series_of, self.kind, self.line)
        yield from reader.read(text.text)
        self.added += reader.added
        return reader.chunk(text), reader.columns()

    def _known(self) -> Generator[None, None, list[dict[bytes, int]]]:
        """Series of the scrape before by what spells them, for each type."""
        if self.known is None:
            self.known = [{} for _ in _KINDS]
            for chunk in self.cache.chunks:
                for kind, spelling, series in zip(
                    chunk.kinds.tolist(), chunk.spellings(), chunk.series.tolist(), strict=True
                ):
                    if series != REFUSED:
                        self.known[kind][spelling] = series
                yield
        return self.known


class _LineReader:
    """Reads the lines of one chunk one by one."""

    def __init__(self, known: list[dict[bytes, int]], series_of: SeriesOf, kind: int, line: int) -> None:
        self._known = known
        self._series_of = series_of
        self._kind = self._first_kind = kind
        self._line = line
        self._regular = True  # single spaces separate the words of each line
        self._series: list[int] = []
        self._values: list[float] = []
        self._stamps: list[int] = []
        self._kinds: list[int] = []
        self._valued: list[int] = []
        self._texts: list[bytes] = []
        self._notes: list[Note] = []
        self.added = 0

    def read(self, text: bytes) -> Generator[None, None, None]:
        find = self._known[self._kind].get
        parsed = 0
        for number, line in enumerate(text.split(b"\n")[:-1]):
            series = None
            spelling, _, value = line.rpartition(b" ")
            stamp = b""
            series = find(spelling)
            if series is None and spelling:
                before, _, first = spelling.rpartition(b" ")
                if value and (series := find(before)) is not None:  # else a space ends the line: that is read anew
                    spelling, value, stamp = before, first, value
            if series is not None:
                try:
                    self._add(number, series, spelling, read_value(value), read_stamp(stamp) if stamp else NO_STAMP)
                    continue
                except BadInput:  # such as a tab among the last words
                    pass
            try:
                parsed += self._parse(number, line)
            except BadInput as error:
                raise type(error)(f"line {self._line + number + 1}: {error.message}") from None
            find = self._known[self._kind].get
            if parsed >= PAUSE_LINES or number % _TURN == _TURN - 1:
                parsed = 0
                yield

    def _parse(self, number: int, line: bytes) -> bool:
        """Read a line from scratch; whether it gives a sample."""
        start = line.lstrip(b" \t")
        if not start:
            return False
        if start.startswith(b"#"):
            note = read_note(line)
            if note is not None:
                self._notes.append(note)
                if note.what == b"TYPE":
                    self._kind = _KINDS.index(note.text)
            return False
        sample = read_sample(line)
        value = read_value(sample.value)
        stamp = NO_STAMP if sample.timestamp is None else read_stamp(sample.timestamp)
        series = self._series_of(normal_pairs(sample.pairs, FLOAT_LABELS.get(_KINDS[self._kind])))
        self.added += series >= 0
        words = line[sample.value_at - 1 :]
        regular = words == b" " + sample.value + (b" " + sample.timestamp if sample.timestamp else b"")
        spelling = line[: sample.value_at - 1] if regular else b"\n"  # which no line has
        if not regular or series == REFUSED:
            self._regular = False
        else:
            self._known[self._kind][spelling] = series
        self._add(number, series, spelling, value, stamp)
        return True

    def _add(self, number: int, series: int, spelling: bytes, value: float, stamp: int) -> None:
        self._series.append(series)
        self._values.append(value)
        self._stamps.append(stamp)
        self._kinds.append(self._kind)
        self._valued.append(number)
        self._texts.append(spelling)

    def columns(self) -> Columns:
        stamps = np.array(self._stamps, np.int64)
        none = bool((stamps == NO_STAMP).all())
        return np.array(self._series, np.int64), np.array(self._values, np.float64), None if none else stamps

    def chunk(self, text: Lines) -> Chunk:
        """What is to be remembered of the chunk."""
        series, _, stamps = self.columns()
        stamped = None if stamps is None else stamps != NO_STAMP
        layout = None
        if self._regular:
            layout = layout_of(text, np.array(self._valued, np.int64), stamped)
        texts = self._texts if layout is None else None
        kinds = np.array(self._kinds, np.int64)
        return Chunk(layout, series, self._first_kind, kinds, tuple(self._notes), texts)
