"""OpenMetrics 1.0, the rules beyond a line: what a metric family may hold, in which order, and with which values.

A family is read row by row. What the rules ask of values is noted as checks on rows, so that a later scrape of the same
lines has only its values checked, all at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.wire.exposition_text import Note, Pairs, is_number, read_value, shown

SUFFIXES: dict[bytes, tuple[bytes, ...]] = {
    b"counter": (b"_total", b"_created"),
    b"summary": (b"", b"_count", b"_sum", b"_created"),
    b"histogram": (b"_count", b"_sum", b"_bucket", b"_created"),
    b"gaugehistogram": (b"_gcount", b"_gsum", b"_bucket"),
    b"info": (b"_info",),
}
"""Of the samples of a family, by its type; those of other types bear its own name."""

_COUNTS = frozenset((b"_total", b"_sum", b"_count", b"_bucket", b"_gcount"))
_OWN_LABEL = {b"histogram": b"le", b"gaugehistogram": b"le", b"summary": b"quantile"}
"""The label that tells samples of one metric apart."""
_INFINITY = float("inf")

Group = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Checks:
    """Numbers of rows, by what has to hold for their values."""

    counts: list[int] = field(default_factory=list)  # not NaN, not negative
    numbers: list[int] = field(default_factory=list)  # not NaN
    quantiles: list[int] = field(default_factory=list)  # not negative
    ones: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)  # 0 or 1
    rising: list[tuple[int, int]] = field(default_factory=list)  # the second not less than the first
    equal: list[tuple[int, int]] = field(default_factory=list)

    def compile(self) -> CompiledChecks:
        pairs = [np.array(pairs, np.int64).reshape(-1, 2) for pairs in (self.rising, self.equal)]
        rows = (self.counts, self.numbers, self.quantiles, self.ones, self.flags)
        return CompiledChecks(*(np.array(some, np.int64) for some in rows), *pairs)


@dataclass(frozen=True, slots=True, eq=False)
class CompiledChecks:
    """The same as columns."""

    counts: Int64s
    numbers: Int64s
    quantiles: Int64s
    ones: Int64s
    flags: Int64s
    rising: Int64s  # [n, 2]
    equal: Int64s  # [n, 2]

    def broken(self, values: Floats) -> tuple[int, str] | None:
        """The first row whose value breaks a rule, and the rule."""
        flags, rising, equal = values[self.flags], values[self.rising], values[self.equal]
        for rows, good, rule in (
            (self.counts, values[self.counts] >= 0, "a count or sum must be neither NaN nor negative"),
            (self.numbers, ~np.isnan(values[self.numbers]), "a sum must not be NaN"),
            (self.quantiles, ~(values[self.quantiles] < 0), "a quantile must not be negative"),
            (self.ones, values[self.ones] == 1, "an info metric has the value 1"),
            (self.flags, (flags == 0) | (flags == 1), "a state has the value 0 or 1"),
            (self.rising[:, 1], rising[:, 0] <= rising[:, 1], "a bucket has a smaller value than the one before it"),
            (self.equal[:, 1], equal[:, 0] == equal[:, 1], "the count is not the value of the bucket +Inf"),
        ):
            bad = np.flatnonzero(~good)
            if len(bad):
                return int(rows[bad[0]]), rule
        return None


@dataclass(slots=True)
class _Histogram:
    """One metric of a histogram family, as far as it has been read."""

    bucket: float | None = None  # bound of the last one
    bucket_row: int = -1
    count_row: int = -1
    has_sum: bool = False
    gsum_row: int = -1
    negative: bool = False  # a bucket with a negative bound


class Families:
    """Reads the families of one scrape. Everything raises BadInput."""

    def __init__(self) -> None:
        self.checks = Checks()
        self.name: bytes | None = None
        self.kind = b"unknown"
        self.notes: list[Note] = []
        self._whats: set[bytes] = set()
        self._unit = b""
        self._taken: set[bytes] = set()  # names of all families so far, and of their samples
        self._samples = 0
        self._group: Group | None = None
        self._groups: set[Group] = set()
        self._seconds: float | None = None
        self._histogram: _Histogram | None = None
        self._own: dict[bytes, bytes] = {}  # suffix by name of sample

    def note(self, note: Note) -> None:
        """A TYPE, HELP or UNIT line."""
        if note.metric != self.name:
            self._begin(note.metric)
        elif self._samples:
            raise BadInput(f"metadata of {shown(note.metric)} after its samples")
        if note.what in self._whats:
            raise BadInput(f"a second {note.what.decode()} of {shown(note.metric)}")
        self._whats.add(note.what)
        self.notes.append(note)
        if note.what == b"TYPE":
            self.kind = note.text
            self._own = {note.metric + suffix: suffix for suffix in SUFFIXES.get(note.text, (b"",))}
        elif note.what == b"UNIT":
            self._unit = note.text

    def sample(self, row: int, pairs: Pairs, seconds: float | None, exemplar: bool) -> None:
        """A sample, whose labels begin with its name."""
        name = pairs[0][1]
        if name not in self._own:
            self._begin(name)
        suffix = self._own[name]
        self._samples += 1
        labels = dict(pairs)
        if len(labels) < len(pairs):
            raise BadInput(f"a label of {shown(name)} occurs twice")
        if exemplar and not (
            (self.kind in (b"histogram", b"gaugehistogram") and suffix == b"_bucket")
            or (self.kind == b"counter" and suffix == b"_total")
        ):
            raise BadInput(f"{shown(name)} has an exemplar: only buckets and totals may")
        self._check_labels(suffix, labels, row)
        self._check_order(labels, seconds)
        if self._histogram is not None:
            self._add_to_histogram(suffix, labels, row)
        if suffix in _COUNTS:
            self.checks.counts.append(row)
        elif suffix == b"_gsum":
            self.checks.numbers.append(row)

    def end(self) -> None:
        """The scrape is over."""
        self._finish()

    # ---- families ---------------------------------------------------------------------------------------------------

    def _begin(self, name: bytes) -> None:
        self._finish()
        self.name, self.kind, self._unit = name, b"unknown", b""
        self._whats, self._own = set(), {name: b""}
        self._samples, self._group, self._seconds = 0, None, None
        self._groups = set()

    def _finish(self) -> None:
        if self.name is None:
            return
        self._finish_histogram()
        for suffix in {*SUFFIXES.get(self.kind, ()), b""}:
            if self.name + suffix in self._taken:
                raise BadInput(f"the name {shown(self.name + suffix)} is taken by another metric")
            self._taken.add(self.name + suffix)
        if self._unit and not self.name.endswith(b"_" + self._unit):
            raise BadInput(f"the name {shown(self.name)} does not end with its unit, {shown(self._unit)}")
        if self._unit and self.kind in (b"info", b"stateset"):
            raise BadInput(f"{shown(self.name)} has a unit: metrics of type {self.kind.decode()} have none")

    # ---- samples ----------------------------------------------------------------------------------------------------

    def _check_labels(self, suffix: bytes, labels: dict[bytes, bytes], row: int) -> None:
        kind, name = self.kind, self.name or b""
        if kind == b"stateset":
            if name not in labels:
                raise BadInput(f"a sample of the state set {shown(name)} has no label of that name")
            self.checks.flags.append(row)
        elif kind == b"info":
            self.checks.ones.append(row)
        elif suffix == b"_bucket":
            bound = labels.get(b"le", b"")
            if not (is_number(bound) or bound in (b"+Inf", b"-Inf")):
                raise BadInput(f"a bucket of {shown(name)} has no valid bound le")
        elif kind == b"summary" and suffix == b"":
            quantile = labels.get(b"quantile", b"")
            if not is_number(quantile) or not 0 <= float(quantile) <= 1:
                raise BadInput(f"a sample of the summary {shown(name)} has no quantile from 0 to 1")
            self.checks.quantiles.append(row)

    def _check_order(self, labels: dict[bytes, bytes], seconds: float | None) -> None:
        """Samples of one metric stand together, and their times do not go back."""
        group = self._group_of(labels)
        if group == self._group:
            if (seconds is None) != (self._seconds is None):
                raise BadInput(f"some samples of a metric of {shown(self.name or b'')} have timestamps, others not")
            if seconds is not None and self._seconds is not None and seconds < self._seconds and self.kind != b"info":
                raise BadInput(f"timestamps of a metric of {shown(self.name or b'')} go back")
            if seconds != self._seconds and self._histogram is not None:
                self._finish_histogram()
                self._histogram = _Histogram()
        else:
            if group in self._groups:
                raise BadInput(f"samples of a metric of {shown(self.name or b'')} do not stand together")
            self._finish_histogram()
            self._histogram = _Histogram() if self.kind in (b"histogram", b"gaugehistogram") else None
            self._groups.add(group)
        self._group, self._seconds = group, seconds

    def _group_of(self, labels: dict[bytes, bytes]) -> Group:
        own = self.name if self.kind == b"stateset" else _OWN_LABEL.get(self.kind)
        return tuple(sorted((key, value) for key, value in labels.items() if key not in (own, b"__name__")))

    # ---- histograms -------------------------------------------------------------------------------------------------

    def _add_to_histogram(self, suffix: bytes, labels: dict[bytes, bytes], row: int) -> None:
        histogram = self._histogram
        assert histogram is not None
        if suffix == b"_bucket":
            bound = read_value(labels[b"le"])
            histogram.negative |= bound < 0
            if histogram.bucket is not None:
                if bound <= histogram.bucket:
                    raise BadInput(f"buckets of {shown(self.name or b'')} are out of order")
                self.checks.rising.append((histogram.bucket_row, row))
            histogram.bucket, histogram.bucket_row = bound, row
        elif suffix in (b"_count", b"_gcount"):
            histogram.count_row = row
        elif suffix == b"_sum":
            histogram.has_sum = True
        elif suffix == b"_gsum":
            histogram.gsum_row = row

    def _finish_histogram(self) -> None:
        histogram, self._histogram = self._histogram, None
        if histogram is None:
            return
        name = shown(self.name or b"")
        has_sum, has_count = histogram.has_sum or histogram.gsum_row >= 0, histogram.count_row >= 0
        if histogram.bucket != _INFINITY:
            raise BadInput(f"a histogram of {name} has no bucket +Inf")
        if has_count:
            self.checks.equal.append((histogram.bucket_row, histogram.count_row))
        if has_sum != has_count:
            raise BadInput(f"a histogram of {name} has a sum or a count, and not both")
        if histogram.has_sum and histogram.negative:
            raise BadInput(f"a histogram of {name} has a sum although it has negative buckets")
        if histogram.gsum_row >= 0 and not histogram.negative:
            self.checks.counts.append(histogram.gsum_row)
