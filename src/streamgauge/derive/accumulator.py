"""What a rule has counted since the start: a series for each set of labels, and how events add to it."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from streamgauge.derive.rule import EventMetric, Kind
from streamgauge.live.event_rows import ABSENT, MAX_EVENT_BYTES, EventRows, field_of
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
        refused = 0
        for payload in rows.values(small):
            number = 1.0
            if self.rule.kind is not Kind.COUNT:
                found = number_of(field_of(payload, self.rule.value))
                if found is None or (found < 0 and self.rule.kind is Kind.SUM):
                    reasons["no_number" if found is None else "negative"] += 1
                    continue
                number = found
            tally = self._tally_of(payload)
            if tally is None:
                refused += 1
            else:
                self._observe(tally, number)
        return LeftOut(reasons, refused)

    def _tally_of(self, payload: Any) -> _Tally | None:
        """None where its labels are refused."""
        labels = []
        for name, path in self.rule.labels:
            text = text_of(field_of(payload, path))
            if len(text) * 4 > MAX_LABEL_VALUE_BYTES and len(text.encode(errors="replace")) > MAX_LABEL_VALUE_BYTES:
                return None
            if text:
                labels.append((name, text))
        return self._tally(tuple(labels))

    def _tally(self, labels: Labels) -> _Tally | None:
        tally = self._tallies.get(labels)
        if tally is None and len(self._tallies) < self._limit:
            buckets = [0] * (len(self.rule.buckets) + 1) if self.rule.kind is Kind.HISTOGRAM else []
            tally = self._tallies[labels] = _Tally(0, 0.0, buckets)
        return tally

    def _observe(self, tally: _Tally, number: float) -> None:
        tally.count += 1
        if self.rule.kind is not Kind.COUNT:
            tally.sum += number
        if self.rule.kind is Kind.HISTOGRAM:
            tally.buckets[bisect_left(self.rule.buckets, number)] += 1

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


def number_of(value: Any) -> float | None:
    """What can be added up: a JSON number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def text_of(value: Any) -> str:
    """A label's value: texts as they are, all else as JSON. What is absent or null has none."""
    if isinstance(value, str):
        return value
    if value is None or value is ABSENT:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
