"""Rows of time series over gRPC, many at a time: messages to batches of samples.

A message takes the library that hands it over fifty times as long as it takes here, so each is read by itself. What
spells its series is the key of a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.wire.findings import Findings, Reason, series_text, shorten
from streamgauge.wire.samples import NEW_AT_ONCE, Window, admit
from streamgauge.wire.series_cache import Resolve, SpellingCache, identify
from streamgauge.wire.timeseries import TURN_BYTES, Row, decode_row, pairs_of

MILLISECOND = 1_000_000
_FAR = 1 << 62


def milliseconds(time: int) -> int:
    """ms of ns, as a column can hold them: whatever is beyond that is beyond any time that a store admits."""
    return max(-_FAR, min(time // MILLISECOND, _FAR))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Of one row. text: for whoever sent it, the row's number first."""

    row: int
    reason: Reason
    text: str


class RowDecoder:
    """Of the rows that one client sends. `first`: of those that are refused, whichever is looked at first.
    `collisions`: rows that had another time in ns than one before them of the same batch, and the same in ms: of those
    the store keeps the last.

    now: ns, the time of rows that have none; None refuses these.
    """

    def __init__(self, cache: SpellingCache, resolve: Resolve, window: Window, findings: Findings) -> None:
        self.collisions = 0
        self.first: Refusal | None = None
        self._cache = cache
        self._resolve = resolve
        self._window = window
        self._findings = findings

    def decode(self, messages: Sequence[bytes], first: int, now: int | None = None) -> Iterator[SampleBatch]:
        """One batch, the last, after pauses, which are empty ones. first: the number of the first message in what the
        client sends, for what is said of those that are refused."""
        rows: list[int] = []
        series: list[int] = []
        times: list[int] = []
        values: list[float] = []
        new = unpaused = 0
        for number, message in enumerate(messages):
            unpaused += len(message)
            if unpaused >= TURN_BYTES or new >= NEW_AT_ONCE:
                new = unpaused = 0
                yield empty_batch()
            row = self._row(message, first + number, now)
            if row is None:
                continue
            known = self._cache.get(row.spelling)
            if known is None:
                new += 1
                known = self._first_seen(row.spelling, first + number)
                if known is None:
                    continue
            rows.append(number)
            series.append(known)
            times.append(row.time or 0)
            values.append(row.value)
        stamps = np.array([milliseconds(time) for time in times], np.int64)
        batch = SampleBatch(np.array(series, np.uint32), stamps, np.array(values, np.float64))
        self.collisions += _collisions(batch, times)
        yield self._admitted(batch, messages, rows, first)

    def _row(self, message: bytes, number: int, now: int | None) -> Row | None:
        try:
            row = decode_row(message)
        except BadInput as error:
            self._refuse(number, Reason.MALFORMED, error.message)
            return None
        if row.time is not None:
            return row
        if now is None:
            self._refuse(number, Reason.NO_TIME, f"{_named(row.spelling)}it has no timestamp")
            return None
        return Row(row.spelling, row.value, now)

    def _first_seen(self, spelling: bytes, number: int) -> int | None:
        """The id of a series; None when it is refused."""
        found = Findings()
        try:
            series = identify(pairs_of(spelling), 1, self._resolve, found)
        except BadInput as error:
            self._refuse(number, Reason.LABELS, error.message)
            return None
        if series is not None:
            self._cache.put(spelling, series)
        for reason, text in zip(found.example_reasons, found.examples, strict=True):
            self._refuse(number, reason, text)
        return series

    def _admitted(self, batch: SampleBatch, messages: Sequence[bytes], rows: Sequence[int], first: int) -> SampleBatch:
        """rows: of each sample, which message it is."""
        numbers: list[int] = []
        found = Findings()

        def named(at: int) -> str:
            numbers.append(first + rows[at])
            return _named(decode_row(messages[rows[at]]).spelling).removesuffix(": ")

        kept = admit(batch, self._window, found, named)
        for number, reason, text in zip(numbers, found.example_reasons, found.examples, strict=True):
            self._refuse(number, reason, text, found.refused[reason])
        return kept

    def _refuse(self, number: int, reason: Reason, text: str, count: int = 1) -> None:
        """Of `count` rows, the first of which is `number`."""
        text = f"row {number}: {text}"
        self._findings.refuse(reason, text, count)
        if self.first is None or number < self.first.row:
            self.first = Refusal(number, reason, shorten(text))


def _named(spelling: bytes) -> str:
    """The series, for the beginning of what is said of it; nothing where it has no name."""
    try:
        return f"{series_text(pairs_of(spelling))}: "
    except BadInput:
        return ""


def _collisions(batch: SampleBatch, times: Sequence[int]) -> int:
    """How many rows have the series and the ms of another, and not its ns."""
    if not any(time % MILLISECOND for time in times):
        return 0
    parts: Int64s = np.array([time % MILLISECOND for time in times], np.int64)
    order = np.lexsort((parts, batch.times, batch.series))
    series, stamps, parts = batch.series[order], batch.times[order], parts[order]
    same = (series[1:] == series[:-1]) & (stamps[1:] == stamps[:-1])
    return int((same & (parts[1:] != parts[:-1])).sum())
