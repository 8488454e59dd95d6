"""Rows of time series over gRPC, many at a time: messages to batches of samples.

A message takes the library that hands it over fifty times as long as it takes here, so each is read by itself. What
spells its series is the key of a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Int64s
from streamgauge.model.batch import SampleBatch, empty_batch
from streamgauge.wire.findings import Findings, Reason, series_text
from streamgauge.wire.samples import NEW_AT_ONCE, Window, admit
from streamgauge.wire.series_cache import Resolve, SpellingCache, identify
from streamgauge.wire.timeseries import TURN_BYTES, Row, decode_row, pairs_of

MILLISECOND = 1_000_000
_FAR = 1 << 62


def milliseconds(time: int) -> int:
    """ms of ns, as a column can hold them: whatever is beyond that is beyond any time that a store admits."""
    return max(-_FAR, min(time // MILLISECOND, _FAR))


class RowDecoder:
    """Of the rows that one client sends. `collisions`: rows that had another time in ns than one before them of the
    same batch, and the same in ms: of those the store keeps the last.

    now: ns, the time of rows that have none; None refuses these.
    """

    def __init__(self, cache: SpellingCache, resolve: Resolve, window: Window, findings: Findings) -> None:
        self.collisions = 0
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
        yield admit(batch, self._window, self._findings, lambda at: _named(messages[rows[at]], first + rows[at]))

    def _row(self, message: bytes, number: int, now: int | None) -> Row | None:
        try:
            row = decode_row(message)
        except BadInput as error:
            self._findings.refuse(Reason.MALFORMED, f"row {number}: {error.message}")
            return None
        if row.time is not None:
            return row
        if now is None:
            self._findings.refuse(Reason.NO_TIME, f"{_named(message, number)}: it has no timestamp")
            return None
        return Row(row.spelling, row.value, now)

    def _first_seen(self, spelling: bytes, number: int) -> int | None:
        """The id of a series; None when it is refused."""
        examples = len(self._findings.examples)
        try:
            series = identify(pairs_of(spelling), 1, self._resolve, self._findings)
        except BadInput as error:
            self._findings.refuse(Reason.LABELS, error.message)
            series = None
        for at in range(examples, len(self._findings.examples)):
            self._findings.examples[at] = f"row {number}: {self._findings.examples[at]}"
        if series is not None:
            self._cache.put(spelling, series)
        return series


def _named(message: bytes, number: int) -> str:
    try:
        return f"row {number}: {series_text(pairs_of(decode_row(message).spelling))}"
    except BadInput:
        return f"row {number}"


def _collisions(batch: SampleBatch, times: Sequence[int]) -> int:
    """How many rows have the series and the ms of another, and not its ns."""
    if not any(time % MILLISECOND for time in times):
        return 0
    parts: Int64s = np.array([time % MILLISECOND for time in times], np.int64)
    order = np.lexsort((parts, batch.times, batch.series))
    series, stamps, parts = batch.series[order], batch.times[order], parts[order]
    same = (series[1:] == series[:-1]) & (stamps[1:] == stamps[:-1])
    return int((same & (parts[1:] != parts[:-1])).sum())
