"""What a rule has counted since the start: a series for each set of labels, and how events add to it."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from streamgauge.derive.rule import EventMetric, Kind
from streamgauge.live.event_rows import MAX_EVENT_BYTES, EventRows
from streamgauge.live.fields import ABSENT
from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.labels import MAX_LABEL_VALUE_BYTES
from streamgauge.stats import Family

MAX_LABEL_SETS = 10_000
"""Of one rule. Each is a series at the least, sampled for as long as the server runs; where there are more, a label has
about as many values as there are events, and belongs into a query."""

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


@dataclass(slots=True)
class _Tally:
    """Of one set of labels. buckets: events in each bucket alone, of which the last is the infinite one."""

    count: int = 0
    sum: float = 0.0
    buckets: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Events that fulfil a rule's condition, or may do so, and do not count."""

    reasons: Counter[str]
    label_sets: int


class Accumulator:
    """The counts of one rule. label_sets: how many it may have."""

    def __init__(self, rule: EventMetric, label_sets: int = MAX_LABEL_SETS) -> None:
        self.rule = rule
        self._limit = label_sets
        self._tallies: dict[Labels, _Tally] = {}
        if not rule.labels:
            self._tally(())  # known to be there, so that its first event is an increase

    @property
    def label_sets(self) -> int:
        return len(self._tallies)

    def add(self, rows: EventRows) -> LeftOut:
        """Count some events."""
        reasons: Counter[str] = Counter()
        matching, unchecked = rows.matching(self.rule.where, None)
        if not self.rule.looks_inside:
            self._tallies[()].count += len(matching)
            return LeftOut(Counter(too_large=unchecked), 0)
        small = matching[rows.sizes[matching] <= MAX_EVENT_BYTES]
        reasons["too_large"] = unchecked + len(matching) - len(small)
        numbers = np.empty(0)
        if self.rule.kind is not Kind.COUNT:
            numbers = numbers_of(rows.fields(self.rule.value, small))
            finite = np.isfinite(numbers)
            counted = finite & (numbers >= 0) if self.rule.kind is Kind.SUM else finite
            reasons["no_number"] = int(np.count_nonzero(~finite))
            reasons["negative"] = int(np.count_nonzero(finite & ~counted))
            small, numbers = small[counted], numbers[counted]
        return LeftOut(reasons, self._observe(*self._grouped(rows, small), numbers))

    def _grouped(self, rows: EventRows, which: Int64s) -> tuple[list[Labels | None], Int64s]:
        """The sets of labels that some events have, in the order in which they come, and the number of each event's.
        None stands for those that no series may have."""
        if not self.rule.labels or not len(which):
            return [()], np.zeros(len(which), np.int64)
        columns = [texts_of(rows.fields(path, which)) for _, path in self.rule.labels]
        known: defaultdict[tuple[str, ...], int] = defaultdict()
        known.default_factory = known.__len__
        codes = np.fromiter(map(known.__getitem__, zip(*columns, strict=True)), np.int64, len(which))
        return [self._labels(texts) for texts in known], codes

    def _labels(self, texts: Sequence[str]) -> Labels | None:
        for text in texts:
            if len(text) * 4 > MAX_LABEL_VALUE_BYTES and len(text.encode(errors="replace")) > MAX_LABEL_VALUE_BYTES:
                return None
        return tuple((name, text) for (name, _), text in zip(self.rule.labels, texts, strict=True) if text)

    def _observe(self, groups: Sequence[Labels | None], codes: Int64s, numbers: Floats) -> int:
        """Add events, each of the group of its code, and with its number unless they are only counted. How many are
        refused."""
        counts = np.bincount(codes, minlength=len(groups)).tolist()
        sums, buckets = [0.0] * len(groups), np.zeros((len(groups), 0), np.int64)
        if self.rule.kind is not Kind.COUNT:
            sums = np.bincount(codes, numbers, len(groups)).tolist()
        if self.rule.kind is Kind.HISTOGRAM:
            width = len(self.rule.buckets) + 1
            places = codes * width + np.searchsorted(self.rule.buckets, numbers)
            buckets = np.bincount(places, minlength=len(groups) * width).reshape(len(groups), width)
        refused = 0
        for labels, count, total, inside in zip(groups, counts, sums, buckets.tolist(), strict=True):
            tally = None if labels is None or not count else self._tally(labels)
            if tally is None:
                refused += count
                continue
            tally.count += count
            tally.sum += total
            tally.buckets = [each + more for each, more in zip(tally.buckets, inside, strict=True)]
        return refused

    def _tally(self, labels: Labels) -> _Tally | None:
        tally = self._tallies.get(labels)
        if tally is None and len(self._tallies) < self._limit:
            buckets = [0] * (len(self.rule.buckets) + 1) if self.rule.kind is Kind.HISTOGRAM else []
            tally = self._tallies[labels] = _Tally(0, 0.0, buckets)
        return tally

    # ---- as samples -------------------------------------------------------------------------------------------------

    def family(self) -> Family:
        """What it has counted, as the samples of a Prometheus counter or histogram."""
        kind = "histogram" if self.rule.kind is Kind.HISTOGRAM else "counter"
        samples = [one for labels, tally in self._tallies.items() for one in self._samples(labels, tally)]
        return Family(self.rule.name, kind, self.rule.help, tuple(samples))

    def _samples(self, labels: Labels, tally: _Tally) -> Iterator[Sample]:
        name = self.rule.name
        if self.rule.kind is Kind.COUNT:
            yield name, labels, float(tally.count)
        elif self.rule.kind is Kind.SUM:
            yield name, labels, tally.sum
        else:
            bounds = (*map(repr, self.rule.buckets), "+Inf")
            for bound, count in zip(bounds, accumulate(tally.buckets), strict=True):
                yield f"{name}_bucket", (*labels, ("le", bound)), float(count)
            yield f"{name}_sum", labels, tally.sum
            yield f"{name}_count", labels, float(tally.count)


def numbers_of(values: Sequence[Any]) -> Floats:
    """What can be added up: JSON numbers that a double can hold. NaN for all else."""
    if set(map(type, values)) <= {int, float, type(ABSENT)}:
        try:
            return np.array([math.nan if value is ABSENT else value for value in values], np.float64)
        except OverflowError:
            pass
    return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def texts_of(values: Sequence[Any]) -> Sequence[str]:
    """Labels' values."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return values
    if kinds == {str, type(ABSENT)}:
        return ["" if value is ABSENT else value for value in values]
    return list(map(text_of, values))


def text_of(value: Any) -> str:
    """A label's value: texts as they are, all else as JSON. What is absent or null has none."""
    if isinstance(value, str):
        return value
    if value is None or value is ABSENT:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
