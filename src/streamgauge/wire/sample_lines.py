"""Samples as lines of text, each with its time: series, value, timestamp.

Three forms share it: OpenMetrics with times in seconds, the Prometheus text format with times in ms, and what
`promtool tsdb dump` prints. Lines that have the usual form, one space before the value and one before the timestamp,
are cut and read in columns; each spelling of a series is parsed once. Any other line is looked at alone, and refused
with its number when it gives no sample.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.wire.digits import decimals, whole_numbers
from streamgauge.wire.exposition_text import (
    NAME,
    Pairs,
    is_number,
    normal_pairs,
    read_series,
    read_value,
    shown,
)
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.imported import (
    MAX_SECONDS,
    Imported,
    Refused,
    Spellings,
    milliseconds_of,
    seconds_of,
    values_of,
)
from streamgauge.wire.imported import words as words_of
from streamgauge.wire.line_words import HASH, SPACE, Lines, Words, are_equal, last_words, pieces, words_behind
from streamgauge.wire.notes import Notes
from streamgauge.wire.sample_table import SeriesRows
from streamgauge.wire.series_order import SeriesOrder
from streamgauge.wire.series_text import go_unescape, parse_series

_EXEMPLAR = b" # "
_MAX_STAMP_DIGITS = 18


class Form(enum.Enum):
    """The value is the name that users give."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"
    DUMP = "dump"


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Samples. lines: their lines, from 0, ascending. codes: numbers of their series."""

    lines: Int64s
    codes: Int64s
    times: Int64s
    values: Floats

    def take(self, which: Bools | Int64s) -> _Rows:
        return _Rows(self.lines[which], self.codes[which], self.times[which], self.values[which])


def _joined(parts: list[_Rows]) -> _Rows:
    """All of them, in the order of lines."""
    lines = np.concatenate([rows.lines for rows in parts])
    codes = np.concatenate([rows.codes for rows in parts])
    times = np.concatenate([rows.times for rows in parts])
    rows = _Rows(lines, codes, times, np.concatenate([rows.values for rows in parts]))
    return rows if (lines[1:] > lines[:-1]).all() else rows.take(np.argsort(lines))


class SampleLines:
    """A reader of such a file.

    time: ms, of samples that have none of their own; None refuses them.
    """

    unit = "line"

    def __init__(self, form: Form, time: int | None = None) -> None:
        self._form = form
        self._time = time
        self._spellings = Spellings(self._labels_of)
        self._order = SeriesOrder(self._spellings.known)
        self._notes = Notes(form is Form.OPENMETRICS)

    @property
    def series(self) -> int:
        return self._spellings.series

    def read(self, block: bytes | memoryview, first: int) -> Imported:
        """The samples of some whole lines."""
        if self._spellings.forget_many():
            self._order.forget()
        findings = Findings()
        lines = Lines.of(block)
        heads = lines.heads()
        notes = heads == HASH
        for number in np.flatnonzero(notes).tolist():
            self._notes.read(lines.text(number), first + number, findings)
        usual = (heads > SPACE) & ~notes
        rows = self._usual(lines if usual.all() else lines.take(usual))
        others = ~notes & (lines.stops > lines.starts)
        others[rows.lines] = False
        singles = self._singles(lines, np.flatnonzero(others), first, findings)
        if singles is not None:
            rows = _joined([rows, singles])
        table = SeriesRows(self._spellings.texts, rows.codes, rows.times, rows.values)
        return Imported(table, rows.lines + first, len(lines), findings)

    @property
    def memory(self) -> Mapping[str, Any]:
        return self._notes.memory

    def remember(self, memory: Mapping[str, Any]) -> None:
        self._notes.remember(memory)

    def end(self) -> str | None:
        if self._form is Form.OPENMETRICS and not self._notes.ended:
            return "the file does not end with the line # EOF, so it may be cut off"
        return None

    # ---- in columns -------------------------------------------------------------------------------------------------

    def _usual(self, lines: Lines) -> _Rows:
        """The samples of those lines that have the usual form, and hold what it promises."""
        known, ends = self._order.follow(lines)
        followed, others = lines.take(slice(len(known))), lines.take(slice(len(known), None))
        parts = []
        if len(followed):
            words, good = words_behind(followed, ends)
            parts.append(self._rows(words, known[good]))
        if len(others) or not parts:
            words = last_words(others)
            parts.append(self._rows(words, self._codes(words)))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _codes(self, words: Words) -> Int64s:
        """The numbers of the series of lines that are in no known order; -1 for what is no series."""
        series: Any = pieces(words.lines, words.value_at)
        first = np.ones(len(words.lines), np.bool_)
        first[1:] = ~are_equal(series.slice(2), series.slice(0, max(len(series) - 2, 0)))
        if np.count_nonzero(first) > len(first) // 2:
            first[:] = True
        series = series.take(pa.array(2 * np.flatnonzero(first)))
        codes = self._spellings.codes(series)
        if first.all():
            good = codes >= 0
            self._order.learn(series if good.all() else series.filter(pa.array(good)), codes[good])
        spread: Int64s = codes[np.cumsum(first) - 1]
        return spread

    def _rows(self, words: Words, codes: Int64s) -> _Rows:
        """The samples of lines whose series have these numbers, -1 for none."""
        values, times, plain = self._plain_numbers(words)
        wrong = codes < 0
        if not plain.all():
            values[~plain], times[~plain], unreadable = self._numbers(words.take(~plain))
            wrong[~plain] |= unreadable
        rows = _Rows(words.lines.numbers, codes, times, values)
        return rows.take(~wrong) if wrong.any() else rows

    def _plain_numbers(self, words: Words) -> tuple[Floats, Int64s, Bools]:
        """Values, times in ms, and where both have a form that is read at once."""
        lines = words.lines
        values, plain = decimals(lines.raw, words.value_at + 1, words.time_at)
        if self._form is not Form.OPENMETRICS:
            times, plain_times = whole_numbers(lines.raw, words.time_at + 1, lines.stops)
        else:
            seconds, plain_times = decimals(lines.raw, words.time_at + 1, lines.stops)
            times = np.rint(np.where(plain_times, seconds, 0.0) * 1000).astype(np.int64)
        return values, times, plain & plain_times

    def _numbers(self, words: Words) -> tuple[Floats, Int64s, Bools]:
        """Values and times in ms of any form, and where there is something else."""
        edges = np.empty(4 * len(words.value_at) + 1, np.int64)
        starts = (words.value_at + 1, words.time_at, words.time_at + 1, words.lines.stops)
        for which, where in enumerate(starts):
            edges[which:-1:4] = where
        edges[-1] = len(words.lines.block)
        value_texts, time_texts = words_of(words.lines.block, edges, 4, 0, 2)
        values, no_values = values_of(value_texts)
        times, no_times = (seconds_of if self._form is Form.OPENMETRICS else milliseconds_of)(time_texts)
        wrong = np.zeros(len(values), np.bool_)
        for missing in (no_values, no_times):
            if missing is not None:
                wrong |= missing
        return values, times, wrong

    def _labels_of(self, spelling: bytes) -> Pairs:
        return self._normal(parse_series(spelling, go_unescape if self._form is Form.DUMP else None))

    def _normal(self, pairs: Pairs) -> Pairs:
        """With `le` and `quantile` spelled as every scrape has them, where the metric's type is known."""
        metric = next((value for name, value in pairs if name == NAME), b"")
        return normal_pairs(pairs, self._notes.float_label(metric))

    # ---- line by line -----------------------------------------------------------------------------------------------

    def _singles(self, lines: Lines, which: Int64s, first: int, findings: Findings) -> _Rows | None:
        """The samples of lines that are looked at one by one."""
        found: list[tuple[int, int, int, float]] = []
        for number in which.tolist():
            try:
                sample = self._sample(lines.text(number), findings)
            except Refused as refused:
                findings.refuse(refused.reason, f"line {first + number}: {refused.message}")
                continue
            if sample is not None:
                found.append((number, *sample))
        if not found:
            return None
        numbers, codes, times, values = zip(*found, strict=True)
        return _Rows(
            np.array(numbers, np.int64),
            np.array(codes, np.int64),
            np.array(times, np.int64),
            np.array(values, np.float64),
        )

    def _sample(self, line: bytes, findings: Findings) -> tuple[int, int, float] | None:
        """The number of the series, the time and the value of one line; None for one without a sample."""
        if not line.strip(b" \t\r"):
            return None
        try:
            _, at = read_series(line, go_unescape if self._form is Form.DUMP else None)
        except BadInput as error:
            raise Refused(Reason.LINE, error.message) from None
        tail, exemplar, _ = line[at:].partition(_EXEMPLAR)
        tokens = tail.split()
        if self._form is Form.DUMP and tail.lstrip().startswith(b"{"):
            raise Refused(Reason.HISTOGRAM, f"native histograms are not stored: {shown(line)}")
        if not 1 <= len(tokens) <= 2:
            raise Refused(Reason.LINE, f"a value and a timestamp were expected after the series: {shown(line)}")
        try:
            value = read_value(tokens[0])
        except BadInput as error:
            raise Refused(Reason.LINE, f"{error.message}: {shown(line)}") from None
        time = self._stamp(tokens[1], line) if len(tokens) == 2 else self._time
        if time is None:
            raise Refused(
                Reason.NO_TIME, f"the sample has no timestamp; give all such one with --timestamp: {shown(line)}"
            )
        series = self._series(line[:at], line)
        if exemplar:
            findings.refused[Reason.EXEMPLAR] += 1
        return series, time, value

    def _series(self, spelling: bytes, line: bytes) -> int:
        try:
            return self._spellings.number(spelling)
        except BadInput as error:
            reason = Reason.LABELS if spelling else Reason.LINE
            raise Refused(
                reason, f"{error.message}: {shown(line)}" if spelling else f"no series: {shown(line)}"
            ) from None

    def _stamp(self, text: bytes, line: bytes) -> int:
        if self._form is Form.OPENMETRICS:
            if is_number(text) and abs(seconds := float(text)) <= MAX_SECONDS:
                return round(seconds * 1000)
            raise Refused(Reason.LINE, f"{shown(text)} is no timestamp in seconds: {shown(line)}")
        digits = text.removeprefix(b"-")
        if digits.isdigit() and len(digits) <= _MAX_STAMP_DIGITS:
            return int(text)
        raise Refused(Reason.LINE, f"{shown(text)} is no timestamp in ms: {shown(line)}")
