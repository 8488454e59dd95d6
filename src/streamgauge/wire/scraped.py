"""What a decoder of scraped text remembers of a target, and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.errors import NotAllowed
from streamgauge.model.arrays import Floats, Int64s, UInt32s
from streamgauge.model.batch import Metadata
from streamgauge.wire.exposition_text import Note, Pairs, metadata_of
from streamgauge.wire.findings import MAX_METADATA_BYTES
from streamgauge.wire.text_layout import Layout

Columns = tuple[Int64s, Floats, Int64s | None]
"""Series, values and timestamps of some rows."""

SeriesOf = Callable[[Pairs], int]
"""The id of a series with these labels, as they stand in the text; or DROPPED or REFUSED. Raises BadInput when the
scrape has to fail because of it: NotAllowed when that is for a limit or relabelling."""

DROPPED = -1
"""Relabelling says that the series is not kept."""
REFUSED = -2
"""There is no room for the series now; it is asked for again with the next scrape."""
NO_STAMP = -(1 << 63)
"""In a column of timestamps: the sample has none of its own."""

PAUSE_LINES = 64
"""Lines parsed before other tasks get their turn: 30 µs each with a new series, as the index takes them in, and 80
where other processes want the core."""


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
    kept: int = field(init=False)  # samples of series that relabelling keeps

    def __post_init__(self) -> None:
        self.kept = len(self.series) - int((self.series == DROPPED).sum())

    def spellings(self) -> list[bytes]:
        """What spells the series of each valued line, without the space behind it."""
        if self.texts is not None:
            return self.texts
        assert self.layout is not None
        between = self.layout.texts_between()
        stamped = self.layout.stamped
        before = between[:-1] if stamped is None else [between[i] for i in np.cumsum(1 + stamped) - 1 - stamped]
        return [text[text.rfind(b"\n") + 1 : -1] for text in before]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Which rows of a scrape are kept. rows: None when all are. count: as `Scraped.kept`."""

    series: UInt32s
    rows: Int64s | None
    count: int
    duplicates: int
    refused: int


NOTHING = Kept(np.empty(0, np.uint32), None, 0, 0, 0)


@dataclass(slots=True, eq=False)
class ScrapeCache:
    """Of one target, by its decoder, from scrape to scrape. Bounded by what one scrape may hold."""

    chunks: list[Chunk] = field(default_factory=list)
    checks: object = None  # what an OpenMetrics decoder checks of values
    distinct: bool = False  # no series occurs twice in all of `chunks`, and none was refused
    kept: Kept = NOTHING  # of all of them

    def clear(self) -> None:
        self.chunks, self.checks, self.distinct, self.kept = [], None, False, NOTHING


@dataclass(frozen=True, slots=True, eq=False)
class Scraped:
    """The samples of one scrape, in order. Rows of series that are not kept are left out.

    stamps: ms, NO_STAMP where a sample has no time of its own; None when none has. lines: samples in the text. kept:
    samples of series that relabelling keeps. added: series that were not known from the scrape before. duplicates:
    samples of a series, and time, that the same scrape had already; they are left out. exemplars: seen, left out.
    same: series and metadata are, row for row, those of the scrape before; `series` is the very same array.
    """

    series: UInt32s
    values: Floats
    stamps: Int64s | None
    lines: int
    kept: int
    added: int = 0
    duplicates: int = 0
    refused: int = 0
    exemplars: int = 0
    same: bool = False


def kept_rows(
    cache: ScrapeCache, columns: Sequence[Columns], added: int = 0, exemplars: int = 0, same: bool = False
) -> Scraped:
    """A scrape of the rows of all chunks: those of series that are not kept, or that came before, are left out.

    same: the chunks are those that the cache holds. Else it is told which rows there are now.
    """
    values, stamps = gather_values(columns)
    if same:
        kept = cache.kept
    else:
        series = np.concatenate([one[0] for one in columns]) if columns else np.empty(0, np.int64)
        again = repeated(series, stamps)
        keep = series >= 0
        keep[again] = False
        dropped, refused = int((series == DROPPED).sum()), int((series == REFUSED).sum())
        rows = None if keep.all() else np.flatnonzero(keep)
        ids = (series if rows is None else series[rows]).astype(np.uint32)
        kept = cache.kept = Kept(ids, rows, len(series) - dropped, len(again), refused)
        cache.distinct = not refused and not len(again if stamps is None else repeated(series, None))
    lines = len(values)
    if kept.rows is not None:
        values = values[kept.rows]
        stamps = None if stamps is None else stamps[kept.rows]
    return Scraped(
        kept.series, values, stamps, lines, kept.count, added, kept.duplicates, kept.refused, exemplars, same
    )


def sample_limit(limit: int) -> NotAllowed:
    return NotAllowed(f"sample_limit exceeded: there are more than {limit} samples")


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


def gather_values(cuts: Sequence[Columns]) -> tuple[Floats, Int64s | None]:
    """Values and timestamps of all chunks, one behind the other."""
    if not cuts:
        return np.empty(0), None
    if len(cuts) == 1:
        return cuts[0][1:]
    stamps: Int64s | None = None
    if any(one[2] is not None for one in cuts):
        stamps = np.concatenate([np.full(len(s), NO_STAMP) if t is None else t for s, _, t in cuts])
    return np.concatenate([one[1] for one in cuts]), stamps


def spread_stamps(layout: Layout, stamps: Int64s) -> Int64s | None:
    """A timestamp for each valued line, from those of the stamped lines."""
    if layout.stamped is None:
        return None
    spread = np.full(len(layout.valued), NO_STAMP, np.int64)
    spread[layout.stamped] = stamps
    return spread


def merged_notes(chunks: Sequence[Chunk]) -> dict[str, Metadata]:
    """The metadata that a target gives, by metric. What is no UTF-8, or longer than metadata may be, is left out."""
    found: dict[str, dict[bytes, bytes]] = {}
    for chunk in chunks:
        for note in chunk.notes:
            if len(note.metric) + len(note.text) <= MAX_METADATA_BYTES:
                found.setdefault(note.metric.decode(errors="replace"), {})[note.what] = note.text
    return {metric: metadata_of(metric, texts) for metric, texts in found.items()}
