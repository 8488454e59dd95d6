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

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s, UInt8s
from streamgauge.model.batch import Metadata
from streamgauge.wire import openmetrics_lines
from streamgauge.wire.exposition_text import (
    FLOAT_LABELS,
    NAME,
    Note,
    Pairs,
    is_number,
    normal_pairs,
    read_note,
    read_series,
    read_value,
    shown,
)
from streamgauge.wire.findings import MAX_METADATA_BYTES, Findings, Reason
from streamgauge.wire.imported import (
    MAX_SECONDS,
    Imported,
    Refused,
    Spellings,
    milliseconds_of,
    seconds_of,
    values_of,
    words,
)
from streamgauge.wire.sample_table import SeriesRows
from streamgauge.wire.series_text import go_unescape, parse_series

_SPACE, _NEWLINE, _HASH = 32, 10, 35
_EXEMPLAR = b" # "
_PIECES = 6  # of a line: series, space, value, space, timestamp, newline
_MAX_STAMP_DIGITS = 18
_MAX_REMEMBERED = 5000  # metrics
_FAMILY_ENDINGS = (b"_bucket", b"_count", b"_sum")


class Form(enum.Enum):
    """The value is the name that users give."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"
    DUMP = "dump"


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Whole lines. marks: where separators stand, which are all bytes up to the space. ends: which of these are line
    feeds. starts, stops: where each line begins, and its line feed. heads: its first byte."""

    block: bytes
    raw: UInt8s
    marks: Int64s
    ends: Int64s
    starts: Int64s
    stops: Int64s
    heads: UInt8s

    @staticmethod
    def of(block: bytes) -> _Lines:
        raw = np.frombuffer(block, np.uint8)
        marks = np.flatnonzero(raw <= _SPACE)
        ends = np.flatnonzero(raw[marks] == _NEWLINE)
        stops = marks[ends]
        starts = np.concatenate(([0], stops[:-1] + 1))
        return _Lines(block, raw, marks, ends, starts, stops, raw[starts])

    def text(self, number: int) -> bytes:
        return self.block[self.starts[number] : self.stops[number]]

    def usual(self) -> Bools:
        """Which have at least two separators, and words before, between and after the last two."""
        ends = self.ends
        usual: Bools = (self.heads > _SPACE) & (self.heads != _HASH) & (ends >= 2)
        value_at, time_at = self.marks[np.maximum(ends - 2, 0)], self.marks[np.maximum(ends - 1, 0)]
        usual &= (value_at > self.starts) & (time_at > value_at + 1) & (self.stops > time_at + 1)
        usual[np.searchsorted(self.stops, self._exemplars())] = False
        return usual

    def _exemplars(self) -> Int64s:
        """Where what may be one begins."""
        if b"#" not in self.block:  # looking for one byte is many times quicker than for three
            return self.stops[:0]
        hashes = np.flatnonzero(self.raw[1:-1] == _HASH) + 1
        exemplars: Int64s = hashes[(self.raw[hashes - 1] == _SPACE) & (self.raw[hashes + 1] == _SPACE)]
        return exemplars

    def pieces(self, numbers: Int64s) -> Int64s:
        """Where the pieces of some lines of the usual form begin, six a line, and where the block ends."""
        ends = self.ends[numbers]
        edges = np.empty(_PIECES * len(numbers) + 1, np.int64)
        value_at, time_at = self.marks[ends - 2], self.marks[ends - 1]
        starts = (self.starts[numbers], value_at, value_at + 1, time_at, time_at + 1, self.stops[numbers])
        for which, where in enumerate(starts):
            edges[which:-1:_PIECES] = where
        edges[-1] = len(self.block)
        return edges


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Samples. lines: their lines, from 0, ascending. codes: numbers of their series."""

    lines: Int64s
    codes: Int64s
    times: Int64s
    values: Floats

    def take(self, which: Bools | Int64s) -> _Rows:
        return _Rows(self.lines[which], self.codes[which], self.times[which], self.values[which])

    def together(self, other: _Rows) -> _Rows:
        """These and others, in the order of lines."""
        rows = _Rows(
            np.concatenate((self.lines, other.lines)),
            np.concatenate((self.codes, other.codes)),
            np.concatenate((self.times, other.times)),
            np.concatenate((self.values, other.values)),
        )
        return rows.take(np.argsort(rows.lines, kind="stable"))


class SampleLines:
    """A reader of such a file.

    time: ms, of samples that have none of their own; None refuses them.
    """

    unit = "line"

    def __init__(self, form: Form, time: int | None = None) -> None:
        self._form = form
        self._time = time
        self._spellings = Spellings(self._labels_of)
        self._notes: dict[bytes, dict[bytes, bytes]] = {}  # by metric, what is known of it
        self._ended = False

    @property
    def series(self) -> int:
        return self._spellings.series

    def read(self, block: bytes, first: int) -> Imported:
        """The samples of some whole lines."""
        self._spellings.forget_many()
        findings = Findings()
        lines = _Lines.of(block)
        notes = lines.heads == _HASH
        for number in np.flatnonzero(notes).tolist():
            self._read_note(lines.text(number), first + number, findings)
        rows = self._usual(lines)
        others = ~notes & (lines.stops > lines.starts)
        others[rows.lines] = False
        singles = self._singles(lines, np.flatnonzero(others), first, findings)
        if singles is not None:
            rows = rows.together(singles)
        table = SeriesRows(self._spellings.texts, rows.codes, rows.times, rows.values)
        return Imported(table, rows.lines + first, len(lines.stops), findings)

    @property
    def memory(self) -> Mapping[str, Any]:
        notes = {
            metric.decode(errors="replace"): {
                what.decode(): text.decode(errors="replace") for what, text in texts.items()
            }
            for metric, texts in list(self._notes.items())[-_MAX_REMEMBERED:]
        }
        return {"notes": notes, "ended": self._ended}

    def remember(self, memory: Mapping[str, Any]) -> None:
        self._ended = bool(memory["ended"])
        for metric, texts in memory["notes"].items():
            self._notes[metric.encode()] = {what.encode(): text.encode() for what, text in texts.items()}

    def end(self) -> str | None:
        if self._form is Form.OPENMETRICS and not self._ended:
            return "the file does not end with the line # EOF, so it may be cut off"
        return None

    # ---- in columns -------------------------------------------------------------------------------------------------

    def _usual(self, lines: _Lines) -> _Rows:
        """The samples of the lines that have the usual form, and hold what it promises."""
        numbers = np.flatnonzero(lines.usual())
        pieces = lines.pieces(numbers)
        series, value_texts, time_texts = words(lines.block, pieces, _PIECES, 0, 2, 4)
        codes = self._spellings.codes(series)
        values, no_values = values_of(value_texts)
        times, no_times = (seconds_of if self._form is Form.OPENMETRICS else milliseconds_of)(time_texts)
        good = codes >= 0
        for missing in (no_values, no_times):
            if missing is not None:
                good &= ~missing
        rows = _Rows(numbers, codes, times, values)
        return rows if good.all() else rows.take(good)

    def _labels_of(self, spelling: bytes) -> Pairs:
        return self._normal(parse_series(spelling, go_unescape if self._form is Form.DUMP else None))

    def _normal(self, pairs: Pairs) -> Pairs:
        """With `le` and `quantile` spelled as every scrape has them, where the metric's type is known."""
        metric = next((value for name, value in pairs if name == NAME), b"")
        for name in (metric, *(metric.removesuffix(ending) for ending in _FAMILY_ENDINGS if metric.endswith(ending))):
            number = FLOAT_LABELS.get(self._notes.get(name, {}).get(b"TYPE", b""))
            if number is not None:
                return normal_pairs(pairs, number)
        return pairs

    # ---- line by line -----------------------------------------------------------------------------------------------

    def _singles(self, lines: _Lines, which: Int64s, first: int, findings: Findings) -> _Rows | None:
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

    # ---- metadata ---------------------------------------------------------------------------------------------------

    def _read_note(self, line: bytes, number: int, findings: Findings) -> None:
        if line.rstrip() == b"# EOF":
            self._ended = True
            return
        try:
            note = self._note(line)
        except BadInput as error:
            findings.refuse(Reason.METADATA, f"line {number}: {error.message}")
            return
        if note is not None and len(note.metric) + len(note.text) <= MAX_METADATA_BYTES:
            texts = self._notes.setdefault(note.metric, {})
            texts[note.what] = note.text
            metric = note.metric.decode(errors="replace")
            findings.metadata[metric] = _metadata(metric, texts)

    def _note(self, line: bytes) -> Note | None:
        if self._form is Form.OPENMETRICS and line.startswith((b"# TYPE ", b"# HELP ", b"# UNIT ")):
            return openmetrics_lines.read_note(line)
        return read_note(line)


def _metadata(metric: str, texts: Mapping[bytes, bytes]) -> Metadata:
    kind = texts.get(b"TYPE", b"unknown").decode()
    return Metadata(
        metric,
        "unknown" if kind == "untyped" else kind,
        texts.get(b"HELP", b"").decode(errors="replace"),
        texts.get(b"UNIT", b"").decode(errors="replace"),
    )
