"""What a data reader answers to a poll, as what a scrape gives: the stream of its messages to columns."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.wire.samples import NEW_AT_ONCE
from streamgauge.wire.scraped import DROPPED, NO_STAMP, REFUSED, ScrapeCache, Scraped, SeriesOf, kept_rows, sample_limit
from streamgauge.wire.timeseries import DOUBLE, TIME_TAG, TURN_BYTES, TURN_ROW_BYTES, VALUE_TAG, decode_row, pairs_of
from streamgauge.wire.timeseries_rows import MILLISECOND, milliseconds


@dataclass(slots=True, eq=False)
class PollCache:
    """Of one reader, from its last answer, which bounds it. rows: what spells the series of each row, and its id."""

    rows: list[tuple[bytes, int]] = field(default_factory=list)
    series: dict[bytes, int] = field(default_factory=dict)  # by what spells them
    scrape: ScrapeCache = field(default_factory=ScrapeCache)


def decode(
    messages: Sequence[bytes], cache: PollCache, series_of: SeriesOf, limit: int = 0
) -> Generator[None, None, tuple[Scraped, int]]:
    """Yields pauses; returns the samples, and how many have the time of another of their series but for less than a
    millisecond: of these the first is kept. limit: of samples that relabelling keeps; 0 is none. Raises BadInput,
    naming the row, for what is no row, and NotAllowed where there are more than `limit`."""
    before, known = cache.rows, cache.series
    rows: list[tuple[bytes, int]] = []
    seen: dict[bytes, int] = {}
    values: list[float] = []
    times: list[int | None] = []  # ns
    added = kept = fresh = unpaused = 0
    same = len(messages) == len(before) and cache.scrape.distinct
    tails = _Tails()
    for number, message in enumerate(messages):
        try:
            if number < len(before) and (tail := tails.read(message, before[number][0])) is not None:
                (spelling, found), (value, time) = before[number], tail
            else:
                same = False
                row = decode_row(message)
                spelling, value, time = row.spelling, row.value, row.time
                found = known.get(spelling, REFUSED)
            if found == REFUSED and (found := seen.get(spelling, REFUSED)) == REFUSED:
                found = series_of(pairs_of(spelling))
                added += found >= 0
                fresh += 1
        except BadInput as error:
            raise type(error)(f"row {number + 1}: {error.message}") from None
        kept += found != DROPPED
        if limit and kept > limit:
            raise sample_limit(limit)
        if found != REFUSED:
            seen[spelling] = found
        rows.append((spelling, found))
        values.append(value)
        times.append(time)
        unpaused += len(message) + TURN_ROW_BYTES
        if unpaused >= TURN_BYTES or fresh >= NEW_AT_ONCE:
            fresh = unpaused = 0
            yield
    if not same:
        cache.rows, cache.series = rows, seen
    ids = np.array([found for _, found in rows], np.int64)
    columns = (ids, np.array(values, np.float64), _stamps(times))
    scraped = kept_rows(cache.scrape, [columns], added, same=same)
    return scraped, _collisions(ids.tolist(), times) if scraped.duplicates else 0


class _Tails:
    """What stands behind the series in the messages of one answer. The last timestamp is kept: mostly all have one."""

    def __init__(self) -> None:
        self._stamp = b""
        self._time: int | None = None

    def read(self, message: bytes, spelling: bytes) -> tuple[float, int | None] | None:
        """Value and time of a row that says nothing but that behind `spelling`, in the usual order. None for any other:
        `decode_row` tells what it is."""
        if not message.startswith(spelling):
            return None
        at, value = len(spelling), 0.0
        if message[at : at + 1] == VALUE_TAG:
            if len(message) < at + 9:
                return None
            (value,) = DOUBLE.unpack_from(message, at + 1)
            at += 9
        if at == len(message):
            return value, None
        stamp = message[at:]
        if stamp != self._stamp:
            if stamp[:1] != TIME_TAG or len(stamp) < 2 or stamp[1] != len(stamp) - 2:
                return None
            try:
                self._time = decode_row(stamp).time
            except BadInput:
                return None
            self._stamp = stamp
        return value, self._time


def _stamps(times: Sequence[int | None]) -> Int64s | None:
    """In ms; None where there are no times at all."""
    if not any(time is not None for time in times):
        return None
    return np.array([NO_STAMP if time is None else milliseconds(time) for time in times], np.int64)


def _collisions(series: Sequence[int], times: Sequence[int | None]) -> int:
    """How many rows have the series and the ms of one before them, and not its ns."""
    first: dict[tuple[int, int], int] = {}
    found = 0
    for number, time in zip(series, times, strict=True):
        if time is not None:
            found += first.setdefault((number, time // MILLISECOND), time) != time
    return found
