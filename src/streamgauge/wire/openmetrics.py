"""OpenMetrics 1.0: the body of a scrape to columns of samples.

A scrape whose lines are those of the one before, but for values and exemplars, is read in columns (`text_layout.py`),
and its values are checked all at once. Any other is read line by line from its beginning, since what a line may be
depends on those before it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.wire.exposition_text import FLOAT_LABELS, Note, normal_pairs, read_value
from streamgauge.wire.openmetrics_families import CompiledChecks, Families
from streamgauge.wire.openmetrics_lines import KINDS, read_note, read_sample
from streamgauge.wire.scraped import (
    DROPPED,
    NO_STAMP,
    PAUSE_LINES,
    REFUSED,
    Chunk,
    Columns,
    ScrapeCache,
    Scraped,
    SeriesOf,
    gather_values,
    kept_rows,
    sample_limit,
)
from streamgauge.wire.text_layout import chunks_of, layout_of, lines_of, match, read_values

_END = b"# EOF\n"
_EXEMPLAR = b" # {"


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What an OpenMetrics decoder remembers beside the chunks."""

    checks: CompiledChecks
    exemplars: frozenset[bytes]  # what spells series that may have exemplars
    stamped: bool  # some sample has a time of its own: such scrapes are read line by line


def decode(body: bytes, cache: ScrapeCache, series_of: SeriesOf, limit: int = 0) -> Generator[None, None, Scraped]:
    """Read one scrape; yields now and then, so that other tasks get their turn.

    limit: of samples that are kept; 0 is none. The cache is as it was when this raises BadInput, which names the line.
    """
    body = body if body.endswith(b"\n") else body + b"\n"
    if not (body.endswith(b"\n" + _END) or body == _END):
        raise BadInput("OpenMetrics ends with the line # EOF; this body does not, so it may be cut off")
    body = body[: -len(_END)]
    known = cache.checks
    if isinstance(known, _Known) and not known.stamped:
        again = yield from _as_before(body, cache, known)
        if again is not None:
            return again
    return (yield from _Reader(cache, series_of, limit).run(body))


def _as_before(body: bytes, cache: ScrapeCache, known: _Known) -> Generator[None, None, Scraped | None]:
    """The columns of a scrape that is as the one before; None when it is not, or its values break a rule."""
    if not cache.distinct:
        return None
    plain, exemplars = body, 0
    if known.exemplars and _EXEMPLAR in body:  # where there were none, one is no part of a value
        cut = yield from _without_exemplars(body, known.exemplars)
        if cut is None:
            return None
        plain, exemplars = cut
    columns: list[Columns] = []
    for number, text in enumerate(chunks_of(plain)):
        if number:
            yield
        chunk = cache.chunks[number] if number < len(cache.chunks) else None
        layout = None if chunk is None else chunk.layout
        found = None if layout is None else match(layout, text)
        values = None if layout is None or found is None else read_values(layout, found)
        if chunk is None or values is None:
            return None
        columns.append((chunk.series, values, None))
    if len(columns) < len(cache.chunks) or known.checks.broken(gather_values(columns)[0]) is not None:
        return None
    return kept_rows(cache, columns, exemplars=exemplars, same=True)


def _without_exemplars(body: bytes, allowed: frozenset[bytes]) -> Generator[None, None, tuple[bytes, int] | None]:
    """The body without its exemplars, and their number; None when one is not valid, or at a series that had none."""
    parts: list[bytes] = []
    done = at = count = seen = 0
    while (at := body.find(_EXEMPLAR, at)) >= 0:
        start = body.rfind(b"\n", 0, at) + 1
        stop = body.index(b"\n", at)
        line = body[start:stop]
        if not line.startswith(b"#"):
            try:
                sample = read_sample(line)
            except BadInput:
                return None
            if sample.exemplar:
                if line[: sample.value_at] not in allowed:
                    return None
                parts += (body[done : start + sample.end], b"\n")
                done = stop + 1
                count += 1
        at = stop
        seen += 1
        if seen % PAUSE_LINES == 0:
            yield
    return b"".join([*parts, body[done:]]), count


class _Reader:
    """Reads a scrape from its beginning, line by line."""

    def __init__(self, cache: ScrapeCache, series_of: SeriesOf, limit: int) -> None:
        self._cache = cache
        self._series_of = series_of
        self._limit = limit
        self._families = Families()
        self._lines: list[int] = []  # of each row
        self._kept = 0
        self._added = 0
        self._exemplars: set[bytes] = set()
        self._exemplar_count = 0
        self._known: dict[tuple[int, bytes], int] = {}

    def run(self, body: bytes) -> Generator[None, None, Scraped]:
        yield from self._remember()
        chunks: list[Chunk] = []
        columns: list[Columns] = []
        line = 0
        for text in chunks_of(body):
            reader = _Chunk()
            for number, one in enumerate(text.text.split(b"\n")[:-1]):
                try:
                    self._read(reader, number, line + number, one)
                except BadInput as error:
                    raise type(error)(f"line {line + number + 1}: {error.message}") from None
                if number % PAUSE_LINES == PAUSE_LINES - 1:
                    yield
            line += len(text)
            chunks.append(reader.chunk())
            columns.append(reader.columns())
        self._families.end()
        values, stamps = gather_values(columns)
        checks = self._families.checks.compile()
        broken = checks.broken(values)
        if broken is not None:
            raise BadInput(f"line {self._lines[broken[0]] + 1}: {broken[1]}")
        scraped = kept_rows(self._cache, columns, added=self._added, exemplars=self._exemplar_count)
        self._cache.chunks = chunks
        self._cache.checks = _Known(checks, frozenset(self._exemplars), stamps is not None)
        return scraped

    def _remember(self) -> Generator[None, None, None]:
        """The series of the scrape before by what spells them, and the type of their metric."""
        for chunk in self._cache.chunks:
            columns = (chunk.kinds.tolist(), chunk.spellings(), chunk.series.tolist())
            for kind, spelling, series in zip(*columns, strict=True):
                if series != REFUSED:
                    self._known[kind, spelling] = series
            yield

    def _read(self, chunk: _Chunk, number: int, line: int, text: bytes) -> None:
        if text.startswith(b"#"):
            note = read_note(text)
            self._families.note(note)
            chunk.notes.append(note)
            chunk.plain.append(text)
            return
        sample = read_sample(text)
        self._families.sample(len(self._lines), sample.pairs, sample.seconds, sample.exemplar)
        spelling, kind = text[: sample.value_at - 1], self._families.kind
        if sample.exemplar:
            self._exemplars.add(text[: sample.value_at])
            self._exemplar_count += 1
        series = self._known.get((KINDS.index(kind), spelling))
        if series is None:
            series = self._series_of(normal_pairs(sample.pairs, FLOAT_LABELS.get(kind)))
            self._added += series >= 0
        self._kept += series != DROPPED
        if self._limit and self._kept > self._limit:
            raise sample_limit(self._limit)
        self._lines.append(line)
        chunk.series.append(series)
        chunk.values.append(read_value(sample.value))
        chunk.stamps.append(NO_STAMP if sample.stamp is None else sample.stamp)
        chunk.kinds.append(KINDS.index(kind))
        chunk.valued.append(number)
        chunk.texts.append(spelling)
        chunk.plain.append(text[: sample.end])


class _Chunk:
    """What is read of some lines. plain: all of them, without exemplars."""

    def __init__(self) -> None:
        self.series: list[int] = []
        self.values: list[float] = []
        self.stamps: list[int] = []
        self.kinds: list[int] = []
        self.valued: list[int] = []
        self.texts: list[bytes] = []
        self.notes: list[Note] = []
        self.plain: list[bytes] = []

    def columns(self) -> Columns:
        stamps = np.array(self.stamps, np.int64)
        series, values = np.array(self.series, np.int64), np.array(self.values, np.float64)
        return series, values, None if (stamps == NO_STAMP).all() else stamps

    def chunk(self) -> Chunk:
        """What is to be remembered."""
        series, _, stamps = self.columns()
        layout = None
        if stamps is None and not (series == REFUSED).any():
            text = b"\n".join(self.plain) + b"\n"
            layout = layout_of(lines_of(text), np.array(self.valued, np.int64), None)
        texts = self.texts if layout is None else None
        return Chunk(layout, series, 0, np.array(self.kinds, np.int64), tuple(self.notes), texts)
