"""What a data reader answers to a poll, as what a scrape gives: the stream of its messages to columns."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.wire.samples import NEW_AT_ONCE
from streamgauge.wire.scraped import DROPPED, NO_STAMP, REFUSED, ScrapeCache, Scraped, SeriesOf, kept_rows, sample_limit
from streamgauge.wire.timeseries import TURN_BYTES, decode_row, pairs_of
from streamgauge.wire.timeseries_rows import MILLISECOND, milliseconds


@dataclass(slots=True, eq=False)
class PollCache:
    """Of one reader: the ids of the series of its last answer, by what spells them. Bounded by what that may hold."""

    series: dict[bytes, int] = field(default_factory=dict)


def decode(
    messages: Sequence[bytes], cache: PollCache, series_of: SeriesOf, limit: int = 0
) -> Generator[None, None, tuple[Scraped, int]]:
    """Yields pauses; returns the samples, and how many have the time of another of their series but for less than a
    millisecond: of these the first is kept. limit: of samples that relabelling keeps; 0 is none. Raises BadInput,
    naming the row, for what is no row, and NotAllowed where there are more than `limit`."""
    known = cache.series
    seen: dict[bytes, int] = {}
    series: list[int] = []
    values: list[float] = []
    times: list[int | None] = []
    added = kept = fresh = unpaused = 0
    for number, message in enumerate(messages, 1):
        try:
            row = decode_row(message)
            found = known.get(row.spelling)
            if found is None and (found := seen.get(row.spelling)) is None:
                found = series_of(pairs_of(row.spelling))
                added += found >= 0
                fresh += 1
        except BadInput as error:
            raise type(error)(f"row {number}: {error.message}") from None
        kept += found != DROPPED
        if limit and kept > limit:
            raise sample_limit(limit)
        if found != REFUSED:
            seen[row.spelling] = found
        series.append(found)
        values.append(row.value)
        times.append(row.time)
        unpaused += len(message)
        if unpaused >= TURN_BYTES or fresh >= NEW_AT_ONCE:
            fresh = unpaused = 0
            yield
    cache.series = seen
    stamps = np.array([NO_STAMP if time is None else milliseconds(time) for time in times], np.int64)
    ids = np.array(series, np.int64)
    column = None if (stamps == NO_STAMP).all() else stamps
    scraped = kept_rows(ScrapeCache(), [(ids, np.array(values, np.float64), column)], added)
    return scraped, _collisions(series, times) if scraped.duplicates else 0


def _collisions(series: Sequence[int], times: Sequence[int | None]) -> int:
    """How many rows have the series and the ms of one before them, and not its ns."""
    first: dict[tuple[int, int], int] = {}
    found = 0
    for number, time in zip(series, times, strict=True):
        if time is not None:
            found += first.setdefault((number, time // MILLISECOND), time) != time
    return found
