"""Samples as JSON lines, as VictoriaMetrics exports and imports them: some samples of one series a line.

    {"metric":{"__name__":"up","job":"node"},"values":[1,0.5,null],"timestamps":[1700000000000,1700000015000,…]}

Times are ms. `null` and `"NaN"` are a NaN; infinities are texts. Lines spelled without spaces and in this order, as
every exporter writes them, are cut out and their numbers read all at once; others go through a JSON parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.wire.exposition_text import Pairs, shown
from streamgauge.wire.findings import Findings, Reason
from streamgauge.wire.imported import Imported, Refused, Spellings, milliseconds_of, values_of, words
from streamgauge.wire.sample_table import SeriesRows

_METRIC, _VALUES, _TIMES, _END = b'{"metric":', b',"values":[', b'],"timestamps":[', b"]}"
_SPECIAL = {
    "null": np.nan,
    '"NaN"': np.nan,
    '"Infinity"': np.inf,
    '"+Infinity"': np.inf,
    '"Inf"': np.inf,
    '"+Inf"': np.inf,
    '"-Infinity"': -np.inf,
    '"-Inf"': -np.inf,
}
_SPECIAL_TEXTS: Any = pa.array(list(_SPECIAL))
_SPECIAL_VALUES = np.array(list(_SPECIAL.values()))
_COMMA = 44
_MAX_TIME = 10**18


class JsonLines:
    """A reader of such a file."""

    unit = "line"

    def __init__(self) -> None:
        self._spellings = Spellings(_labels_of)

    def read(self, block: bytes | memoryview, first: int) -> Imported:
        """The samples of some whole lines."""
        self._spellings.forget_many()
        lines = _Lines(self._spellings, first)
        number = 0
        for number, line in enumerate(bytes(block).split(b"\n")):
            if line:
                lines.add(number, line)
        return lines.imported(number)

    @property
    def series(self) -> int:
        return self._spellings.series

    @property
    def memory(self) -> Mapping[str, Any]:
        return {}

    def remember(self, memory: Mapping[str, Any]) -> None:
        pass

    def end(self) -> str | None:
        return None


class _Lines:
    """The lines of one block, on their way into columns.

    An entry of each list is a line: the number of its series, its own in the block, its count of samples, their text.
    """

    def __init__(self, spellings: Spellings, first: int) -> None:
        self._spellings = spellings
        self._first = first
        self._findings = Findings()
        self._codes: list[int] = []
        self._numbers: list[int] = []
        self._counts: list[int] = []
        self._values: list[bytes] = []
        self._times: list[bytes] = []

    def add(self, number: int, line: bytes) -> None:
        times_at = line.rfind(_TIMES)
        values_at = line.rfind(_VALUES, 0, times_at)
        usual = values_at > 0 and line.startswith(_METRIC) and line.endswith(_END)
        try:
            if usual:
                metric = line[len(_METRIC) : values_at]
                values = line[values_at + len(_VALUES) : times_at]
                times = line[times_at + len(_TIMES) : -len(_END)]
            else:
                metric, values, times = _parsed(line)
            count = values.count(b",") + 1 if values else 0
            if count != (times.count(b",") + 1 if times else 0):
                raise Refused(Reason.LINE, f"there are not as many values as timestamps: {shown(line)}")
            series = self._series(metric, line)
        except Refused as refused:
            self._findings.refuse(refused.reason, f"line {self._first + number}: {refused.message}")
            return
        if count:
            self._codes.append(series)
            self._numbers.append(number)
            self._counts.append(count)
            self._values.append(values)
            self._times.append(times)

    def _series(self, metric: bytes, line: bytes) -> int:
        try:
            return self._spellings.number(metric)
        except BadInput as error:
            reason = Reason.LABELS if metric.startswith(b"{") else Reason.LINE
            raise Refused(reason, f"{error.message}: {shown(line)}") from None

    def imported(self, count: int) -> Imported:
        counts = np.array(self._counts, np.int64)
        lines = np.repeat(np.array(self._numbers, np.int64), counts)
        codes = np.repeat(np.array(self._codes, np.int64), counts)
        times, no_times = milliseconds_of(_split(self._times))
        values, no_values = _values(_split(self._values))
        keep = self._whole_lines(lines, no_times, no_values)
        rows = SeriesRows(self._spellings.texts, codes[keep], times[keep], values[keep])
        return Imported(rows, lines[keep] + self._first, count, self._findings)

    def _whole_lines(self, lines: Int64s, *wrong: Bools | None) -> Bools:
        """Which rows are kept: those of a line in which something cannot be read are not."""
        keep = np.ones(len(lines), np.bool_)
        for missing in wrong:
            if missing is not None:
                keep &= ~np.isin(lines, lines[missing])
        for number, count in zip(*np.unique(lines[~keep], return_counts=True), strict=True):
            what = "the line has a value or a timestamp that cannot be read"
            self._findings.refuse(Reason.LINE, f"line {self._first + int(number)}: {what}", int(count))
        return keep


def _labels_of(spelling: bytes) -> Pairs:
    try:
        metric = json.loads(spelling)
        return [(name.encode(), value.encode()) for name, value in metric.items()]
    except (ValueError, AttributeError, RecursionError):
        raise BadInput("the metric is no JSON object of texts") from None


def _parsed(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Metric, values and timestamps of a line in any spelling of JSON, as the usual one has them."""
    try:
        entry = json.loads(line)
        metric, values, times = (entry[name] for name in ("metric", "values", "timestamps"))
        if not isinstance(metric, dict) or not all(type(time) is int and abs(time) < _MAX_TIME for time in times):
            raise ValueError
        spelled = (
            json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in (metric, values, times)
        )
        metric_text, values_text, times_text = spelled
    except (ValueError, KeyError, TypeError, RecursionError):
        message = 'a JSON object with "metric", "values" and "timestamps" was expected'
        raise Refused(Reason.LINE, f"{message}: {shown(line)}") from None
    return metric_text, values_text[1:-1], times_text[1:-1]


def _split(parts: list[bytes]) -> Any:
    """The numbers of all lines, each line's separated by commas, as an Arrow array of text."""
    block = b",".join(parts) + b"," if parts else b""
    commas = np.flatnonzero(np.frombuffer(block, np.uint8) == _COMMA)
    edges = np.empty(2 * len(commas) + 1, np.int64)
    edges[-1] = len(block)
    edges[1::2] = commas
    edges[2::2] = commas + 1
    edges[0] = 0
    return words(block, edges, 2, 0)[0]


def _values(texts: Any) -> tuple[Floats, Bools | None]:
    values, wrong = values_of(texts)
    if wrong is None:
        return values, None
    rows = np.flatnonzero(wrong)
    found: Any = pc.index_in(texts.take(pa.array(rows)), value_set=_SPECIAL_TEXTS)
    which = found.fill_null(-1).to_numpy(zero_copy_only=False)
    special = which >= 0
    values[rows[special]] = _SPECIAL_VALUES[which[special]]
    wrong[rows[special]] = False
    return values, wrong if wrong.any() else None
