"""What the stats API of relays asks: the latest value of a stat, one value an hour, or one for each time of the day.

Hourly and daily values are of the aggregated data: the mean of each series over each aggregate interval. That is taken
of what is stored, be it samples or, past their retention, aggregates of them. Series are chosen by matchers alone.
Picklable; implements query.requests.History. An answer of no bytes means that nothing was found.
"""

from __future__ import annotations

import enum
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.model.arrays import Floats, Int64s
from streamgauge.model.source import AggregateKind, Matcher, MatchOp, Meter, Source

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MAX_ALTERNATIVES = 1_000
"""Combinations of the values that tags may have. Each is a selection of its own."""
MAX_BUCKETS = 100_000
"""Of one answer: eleven years of hours, or three of quarter hours."""
_ROW_BYTES = 100

Number = float | int | None

RAW = "none"
"""The verb that aggregates nothing."""

VERBS: Mapping[str, Callable[[Floats], Number]] = {
    "mean": lambda values: float(np.mean(values)),
    "min": lambda values: float(np.min(values)),
    "max": lambda values: float(np.max(values)),
    "sum": lambda values: float(np.sum(values)),
    "count": len,
    "median": lambda values: float(np.median(values)),
    "first": lambda values: float(values[0]),
    "last": lambda values: float(values[-1]),
    "spread": lambda values: float(np.max(values) - np.min(values)),
    "stddev": lambda values: float(np.std(values, ddof=1)) if len(values) > 1 else None,
}
"""The aggregates of InfluxQL, of values in order of time."""


class Period(enum.Enum):
    LATEST = "latest"
    HOURLY = "hourly"
    DAILY = "daily"


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """Times and intervals are ms. filters: tags, each with the values that it may have. start, end: between them lie
    the beginnings of the aggregated values, or the samples; both are outside. interval: of aggregation, or of polls.
    backfill: what stands in buckets that have nothing; None leaves them out."""

    stat: str
    period: Period
    verb: str
    filters: tuple[tuple[str, tuple[str, ...]], ...]
    now: int
    start: int
    end: int
    interval: int
    backfill: float | None = None

    content_type = "application/json"

    @property
    def text(self) -> str:
        return f"{self.period.value} {self.verb} of {self.stat}"

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]:
        answer = self._latest(source, meter) if self.period is Period.LATEST else self._aggregated(source, meter)
        if answer is not None:
            yield json.dumps(answer, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"

    def alternatives(self) -> list[tuple[Matcher, ...]]:
        """The selections that make up what is asked for; no series is in two of them."""
        sets = [
            [Matcher(name, MatchOp.EQUAL, value) for value in dict.fromkeys(values)] for name, values in self.filters
        ]
        fixed = (Matcher("__name__", MatchOp.EQUAL, self.stat), Matcher("host", MatchOp.NOT_EQUAL, ""))
        return [fixed + each for each in itertools.product(*sets)]

    # ---- latest -----------------------------------------------------------------------------------------------------

    def _latest(self, source: Source, meter: Meter) -> object:
        found = _read(source, self.alternatives(), self.start + 1, self.end, meter, AggregateKind.LAST_NUMBER)
        if not len(found.times):
            return None
        if self.verb == RAW:
            several = [name for name, values in self.filters if len(values) > 1]
            return [
                {"time": time, "value": value} | {name: found.labels[owner].get(name, "") for name in several}
                for time, value, owner in zip(
                    found.times.tolist(), found.values.tolist(), found.owners.tolist(), strict=True
                )
            ]
        buckets = found.times // self.interval
        newest = int(buckets.max())
        return {"time": newest * self.interval, "value": self._value(found.values[buckets == newest])}

    def _value(self, values: Floats) -> Number:
        with np.errstate(over="ignore", invalid="ignore"):
            value = VERBS[self.verb](values)
        return value if value is not None and math.isfinite(value) else None

    # ---- aggregated -------------------------------------------------------------------------------------------------

    def _aggregated(self, source: Source, meter: Meter) -> object:
        times, values = self._means(source, meter)
        if not len(times):
            return None
        width = HOUR_MS if self.period is Period.HOURLY else self.interval
        buckets: dict[int, Number] = {}
        if self.backfill is not None:
            buckets = dict.fromkeys(range(self.start // width, (self.end - 1) // width + 1), self.backfill)
        numbers, firsts = np.unique(times // width, return_index=True)
        for number, part in zip(numbers.tolist(), np.split(values, firsts[1:]), strict=True):
            buckets[number] = self._value(part)
        if self.period is Period.HOURLY:
            return [{"time": number * width, "value": value} for number, value in sorted(buckets.items())]
        return _by_time_of_day({number * width: value for number, value in buckets.items()})

    def _means(self, source: Source, meter: Meter) -> tuple[Int64s, Floats]:
        """The mean of each series over each interval that begins between start and end, in order of time."""
        first = (self.start // self.interval + 1) * self.interval
        last = min(-(-self.end // self.interval) * self.interval - 1, self.now)
        sums = _read(source, self.alternatives(), first, last, meter, AggregateKind.SUM)
        counts = (
            _read(source, self.alternatives(), first, last, meter, AggregateKind.COUNT) if source.horizons else None
        )
        totals: dict[tuple[int, tuple[tuple[str, str], ...]], list[float]] = {}
        for found, place in ((sums, 0), (counts, 1)):
            if found is None:
                continue
            keys = [tuple(sorted(labels.items())) for labels in found.labels]
            for time, owner, total, count in _by_bucket(found, self.interval):
                entry = totals.setdefault((time, keys[owner]), [0.0, 0.0])
                entry[place] = total
                if counts is None:
                    entry[1] = count
        means = sorted((time, total / count) for (time, _), (total, count) in totals.items() if count)
        return np.array([time for time, _ in means], np.int64), np.array([mean for _, mean in means], np.float64)


@dataclass(frozen=True, slots=True)
class _Found:
    """Numbers in order of time, and whose they are: places in `labels`."""

    labels: Sequence[Mapping[str, str]]
    owners: Int64s
    times: Int64s
    values: Floats


def _read(
    source: Source,
    alternatives: Sequence[tuple[Matcher, ...]],
    start: int,
    end: int,
    meter: Meter,
    aggregate: AggregateKind,
) -> _Found:
    labels: list[Mapping[str, str]] = []
    owners, times, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float64)]
    for matchers in alternatives if start <= end else ():
        found = source.select(matchers, start, end, meter, aggregate)
        samples = found.samples
        kept = np.flatnonzero(np.isfinite(samples.values))  # JSON has no word for others
        meter.charge(0, _ROW_BYTES * (len(kept) + len(samples)))
        owners.append((np.repeat(np.arange(len(samples)), np.diff(samples.offsets)) + len(labels))[kept])
        times.append(samples.times[kept])
        values.append(samples.values[kept])
        labels += found.labels
    all_times = np.concatenate(times)
    order = np.argsort(all_times, kind="stable")
    return _Found(labels, np.concatenate(owners)[order], all_times[order], np.concatenate(values)[order])


def _by_bucket(found: _Found, width: int) -> Iterator[tuple[int, int, float, int]]:
    """For each interval and series that has something in it: its beginning, the series, sum and number of values."""
    if not len(found.times):
        return
    buckets = found.times // width
    oldest, series = int(buckets.min()), len(found.labels)
    distinct, places = np.unique((buckets - oldest) * series + found.owners, return_inverse=True)
    sums = np.bincount(places, found.values)
    for key, total, count in zip(distinct.tolist(), sums.tolist(), np.bincount(places).tolist(), strict=True):
        yield (key // series + oldest) * width, key % series, total, count


def _by_time_of_day(values: Mapping[int, Number]) -> list[dict[str, object]]:
    """The mean over all days, for each time of the day (UTC) that has values."""
    days: dict[int, list[float]] = {}
    for time, value in values.items():
        if value is not None:
            days.setdefault(time % DAY_MS, []).append(value)
    return [
        {"time": f"{time // HOUR_MS:02d}:{time % HOUR_MS // 60_000:02d}", "value": sum(found) / len(found)}
        for time, found in sorted(days.items())
    ]
