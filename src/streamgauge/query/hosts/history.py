"""What is asked about the past of a host. Both classes are picklable and implement query.requests.History."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from streamgauge.model.arrays import Bools, Floats, Int64s
from streamgauge.model.host_history import LARGEST, METRICS, MINUTE_MS, HostSample
from streamgauge.model.source import AggregateKind, Matcher, MatchOp, Meter, Source

HOST = "host"
_ROW_BYTES = 160
"""Of a sample while it is put together."""


@dataclass(frozen=True, slots=True)
class HostHistoryQuery:
    """The first sample of each stretch of `resolution` ms, of those with start < time <= end (ms). label: what the
    answer calls the range.

    Where several series of one host differ in other labels, what they say when a stretch begins is put together: of
    each its first sample, if that is less than an interval of samples later than the first of all. One that came later
    may have taken the place of another, as when a label of the host has changed."""

    host: str
    label: str
    start: int
    end: int
    resolution: int

    content_type = "application/json"

    @property
    def text(self) -> str:
        return f"history of {self.host}"

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]:
        samples = [asdict(sample) for sample in self.samples(source, meter)]
        yield _json({"host": self.host, "range": self.label, "samples": samples})

    def samples(self, source: Source, meter: Meter) -> list[HostSample]:
        """Oldest first."""
        owners, times, values = self._rows(source, meter)
        buckets = times // self.resolution
        order = np.lexsort((times, owners, buckets))
        chosen = order[_firsts(owners[order], buckets[order])]
        chosen = chosen[_since_first(times[chosen], buckets[chosen]) < _interval(owners, times)]
        rows = [_sample(time, row) for time, row in zip(times[chosen].tolist(), values[chosen].tolist(), strict=True)]
        found: dict[int, list[HostSample]] = {}
        for bucket, sample in zip(buckets[chosen].tolist(), rows, strict=True):
            found.setdefault(bucket, []).append(sample)
        return [together(samples) for samples in found.values()]

    def _rows(self, source: Source, meter: Meter) -> tuple[Int64s, Int64s, Floats]:
        """Whose each sample is, its time in ms, and its members in the order of METRICS: [samples, 4]."""
        names = list(METRICS.values())
        matchers = (Matcher("__name__", MatchOp.MATCH, "|".join(names)), Matcher(HOST, MatchOp.EQUAL, self.host))
        selection = source.select(matchers, self.start + 1, self.end, meter, AggregateKind.LAST_NUMBER)
        labels, samples = selection.labels, selection.samples
        meter.charge(0, _ROW_BYTES * len(samples.times))
        owner_of, _ = labels.without(["__name__"]).group()
        member_of = np.array(
            [names.index(labels.columns["__name__"].text(row)) for row in range(len(labels))], np.int64
        )
        row = np.repeat(np.arange(len(samples)), np.diff(samples.offsets))
        kept = np.flatnonzero(np.abs(samples.values) <= LARGEST)  # which NaN is not
        row, times, values = row[kept], samples.times[kept], samples.values[kept]
        owners, members = owner_of[row], member_of[row]
        order = np.lexsort((times, owners))
        owners, times = owners[order], times[order]
        first = _firsts(owners, times)
        table = np.zeros((np.count_nonzero(first), len(names)))
        table[np.cumsum(first) - 1, members[order]] = values[order]
        return owners[first], times[first], table


@dataclass(frozen=True, slots=True)
class HostNamesQuery:
    """The hosts that have a sample with start < time <= end (ms)."""

    start: int
    end: int

    content_type = "application/json"
    text = "hosts that have a history"

    def read(self, source: Source, meter: Meter) -> Iterator[bytes]:
        yield _json({"hosts": self.names(source, meter)})

    def names(self, source: Source, meter: Meter) -> list[str]:
        matchers = (Matcher("__name__", MatchOp.EQUAL, METRICS["requests_sec"]), Matcher(HOST, MatchOp.NOT_EQUAL, ""))
        frame = source.series([matchers], self.start + 1, self.end, meter, [HOST])
        column = frame.columns.get(HOST)
        return [] if column is None else sorted({column.text(row) for row in range(len(frame))})


def _json(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _firsts(*columns: Int64s) -> Bools:
    """Which rows of sorted columns differ from the row before."""
    first = np.ones(len(columns[0]), np.bool_)
    first[1:] = np.logical_or.reduce([np.diff(column) != 0 for column in columns])
    return first


def _since_first(times: Int64s, buckets: Int64s) -> Int64s:
    """How much later each is than the first of its bucket. Buckets ascend."""
    starts = np.flatnonzero(_firsts(buckets))
    earliest: Int64s = np.minimum.reduceat(times, starts)
    since: Int64s = times - np.repeat(earliest, np.diff(starts, append=len(times)))
    return since


def _interval(owners: Int64s, times: Int64s) -> float:
    """Between two samples of one owner, in ms, as it mostly is: after a reload one comes early. Both are sorted."""
    gaps = np.diff(times)[np.diff(owners) == 0]
    return float(np.median(gaps)) if len(gaps) else MINUTE_MS


def together(samples: Sequence[HostSample]) -> HostSample:
    """Of several programs that answer for one host."""
    if len(samples) == 1:
        return samples[0]
    requests = sum(sample.requests_sec for sample in samples)
    errors = sum(sample.requests_sec * sample.error_rate for sample in samples)
    return HostSample(
        min(sample.ts for sample in samples),
        requests,
        max(sample.p99_ms for sample in samples),
        errors / requests if requests else 0.0,
        sum(sample.active_backends for sample in samples),
    )


def _sample(time: int, values: Sequence[float]) -> HostSample:
    requests, p99, errors, backends = values
    return HostSample(time // 1000, requests, p99, errors, round(backends))
