"""What a decoder of scraped text remembers of a target, and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.batch import Metadata
from streamgauge.wire.exposition_text import Note, Pairs
from streamgauge.wire.findings import MAX_METADATA_BYTES
from streamgauge.wire.text_layout import CHUNK_LINES, Layout

SeriesOf = Callable[[Pairs], int]
"""The id of a series with these labels, as they stand in the text; or DROPPED or REFUSED. Raises BadInput when the
scrape has to fail because of it."""

DROPPED = -1
"""Relabelling says that the series is not kept."""
REFUSED = -2
"""There is no room for the series now; it is asked for again with the next scrape."""
NO_STAMP = -(1 << 63)
"""In a column of timestamps: the sample has none of its own."""

MAX_LINE_BYTES = 1 << 20
"""A longer line is no exposition; the labels of a series have 128 KiB at most."""
_WINDOW_BYTES = 1 << 19

PAUSE_LINES = 256
"""Lines parsed before other tasks get their turn: 30 µs each with a new series, as the index takes them in."""


@dataclass(slots=True, eq=False)
class Chunk:
    """Some consecutive lines of the last scrape.

    layout: None where the lines have to be looked at one by one. series: of each valued line. kind: the type in force
    before the first line, and kinds: at each valued line, as the decoder numbers them. texts: of each valued line what
    spells its series, where there is no layout.
    """

    layout: Layout | None
    series: Int64s
    kind: int
    kinds: Int64s
    notes: tuple[Note, ...]
    texts: list[bytes] | None

    def spellings(self) -> list[bytes]:
        """What spells the series of each valued line, without the space behind it."""
        if self.texts is not None:
            return self.texts
        assert self.layout is not None
        between = cast("list[bytes]", self.layout.between.to_pylist())
        stamped = self.layout.stamped
        before = between[:-1] if stamped is None else [between[i] for i in np.cumsum(1 + stamped) - 1 - stamped]
        return [text[text.rfind(b"\n") + 1 : -1] for text in before]


@dataclass(slots=True, eq=False)
class ScrapeCache:
    """Of one target, by its decoder, from scrape to scrape. Bounded by what one scrape may hold."""

    chunks: list[Chunk] = field(default_factory=list)
    checks: object = None  # what an OpenMetrics decoder checks of values
    distinct: bool = False  # no series occurs twice in all of `chunks`

    def clear(self) -> None:
        self.chunks, self.checks, self.distinct = [], None, False


@dataclass(frozen=True, slots=True, eq=False)
class Scraped:
    """The samples of one scrape, in order. Rows of series that are not kept are left out.

    stamps: ms, NO_STAMP where a sample has no time of its own; None when none has. lines: samples in the text. kept:
    samples of series that relabelling keeps. added: series that were not known from the scrape before. duplicates:
    samples of a series, and time, that the same scrape had already; they are left out. exemplars: seen, left out.
    same: series and metadata are, row for row, those of the scrape before.
    """

    series: Int64s
    values: Floats
    stamps: Int64s | None
    lines: int
    kept: int
    added: int = 0
    duplicates: int = 0
    refused: int = 0
    exemplars: int = 0
    same: bool = False


def chunks_of(body: bytes) -> Iterator[tuple[bytes, int]]:
    """The body in runs of CHUNK_LINES lines, each with the number of its lines; a newline at the end is supplied.
    Raises BadInput for a line that is too long."""
    start, window = 0, _WINDOW_BYTES
    while start < len(body):
        piece = body[start : start + window]
        last = start + len(piece) == len(body)
        if last and not piece.endswith(b"\n"):
            piece += b"\n"
        ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == 10)
        if len(ends) < CHUNK_LINES and not last:
            if window - (int(ends[-1]) if len(ends) else 0) > MAX_LINE_BYTES:
                raise BadInput(f"a line is longer than {MAX_LINE_BYTES} bytes; this is no exposition of metrics")
            window *= 2
            continue
        lines = min(len(ends), CHUNK_LINES)
        stop = int(ends[lines - 1]) + 1
        if lines and int(np.diff(ends[:lines], prepend=-1).max()) > MAX_LINE_BYTES:
            raise BadInput(f"a line is longer than {MAX_LINE_BYTES} bytes; this is no exposition of metrics")
        yield piece[:stop], lines
        start += stop


def kept_rows(
    series: Int64s, values: Floats, stamps: Int64s | None, added: int = 0, exemplars: int = 0, same: bool = False
) -> Scraped:
    """A scrape of all of its rows: those of series that are not kept, or that came before, are left out.

    same: the rows are those of a scrape in which no series came twice.
    """
    lines, kept = len(series), len(series) - int((series == DROPPED).sum())
    again = np.empty(0, np.int64) if same else repeated(series, stamps)
    refused = int((series == REFUSED).sum())
    if len(again) or kept < lines or refused:
        keep = series >= 0
        keep[again] = False
        series, values = series[keep], values[keep]
        stamps = None if stamps is None else stamps[keep]
    return Scraped(series, values, stamps, lines, kept, added, len(again), refused, exemplars, same)


def sample_limit(limit: int) -> BadInput:
    return BadInput(f"sample_limit exceeded: there are more than {limit} samples")


def repeated(series: Int64s, stamps: Int64s | None) -> Int64s:
    """Rows whose series, and time, an earlier row has. Rows of series that are not kept do not count."""
    rows = np.flatnonzero(series >= 0)
    ids = series[rows]
    if not len(ids):
        return rows
    if stamps is None:
        low, high = int(ids.min()), int(ids.max())
        if high - low < 8 * len(ids) + 1024:
            first = np.full(high - low + 1, -1, np.int64)
            first[ids[::-1] - low] = rows[::-1]  # of equal ones the last assignment stays
            later: Int64s = rows[first[ids - low] != rows]
            return later
        order = np.argsort(ids, kind="stable")
        again = ids[order][1:] == ids[order][:-1]
    else:
        order = np.lexsort((rows, stamps[rows], ids))
        times = stamps[rows][order]
        again = (ids[order][1:] == ids[order][:-1]) & (times[1:] == times[:-1])
    late: Int64s = np.sort(rows[order[1:][again]])
    return late


def gather(cuts: Sequence[tuple[Int64s, Floats, Int64s | None]]) -> tuple[Int64s, Floats, Int64s | None]:
    """The columns of all chunks, one behind the other."""
    if not cuts:
        return np.empty(0, np.int64), np.empty(0), None
    if len(cuts) == 1:
        return cuts[0]
    stamps: Int64s | None = None
    if any(one[2] is not None for one in cuts):
        stamps = np.concatenate([np.full(len(s), NO_STAMP) if t is None else t for s, _, t in cuts])
    return np.concatenate([one[0] for one in cuts]), np.concatenate([one[1] for one in cuts]), stamps


def spread_stamps(layout: Layout, stamps: Int64s) -> Int64s | None:
    """A timestamp for each valued line, from those of the stamped lines."""
    if layout.stamped is None:
        return None
    spread = np.full(len(layout.valued), NO_STAMP, np.int64)
    spread[layout.stamped] = stamps
    return spread


def merged_notes(chunks: Sequence[Chunk]) -> dict[str, Metadata]:
    """The metadata that a target gives, by metric. What is no UTF-8, or longer than metadata may be, is left out."""
    found: dict[str, dict[bytes, str]] = {}
    for chunk in chunks:
        for note in chunk.notes:
            if len(note.metric) + len(note.text) <= MAX_METADATA_BYTES:
                metric = note.metric.decode(errors="replace")
                found.setdefault(metric, {})[note.what] = note.text.decode(errors="replace")
    return {
        metric: Metadata(metric, _kind(texts.get(b"TYPE", "unknown")), texts.get(b"HELP", ""), texts.get(b"UNIT", ""))
        for metric, texts in found.items()
    }


def _kind(word: str) -> str:
    return "unknown" if word == "untyped" else word
