"""Metric families as clients of Prometheus exchange them: plain values, and the samples that they stand for.

The schema is metrics.proto of https://github.com/prometheus/client_model, where every field is optional: a value says
what is absent where somebody needs to know. `metric_family_protobuf.py` and `metric_family_text.py` read and write
them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import IntEnum

from streamgauge.errors import BadInput
from streamgauge.wire.exposition_text import label_float

MAX_METRIC_LABELS = 2048
"""Of one metric, as it is spelled: no more than 256 are stored, and a transform may drop some before."""

Labels = tuple[tuple[str, str | None], ...]
"""Names and values as they came, also twice; the value is None where it is absent."""


class MetricType(IntEnum):
    """The numbers that stand for the types on the wire."""

    COUNTER = 0
    GAUGE = 1
    SUMMARY = 2
    UNTYPED = 3
    HISTOGRAM = 4
    GAUGE_HISTOGRAM = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """quantiles: (quantile, value), as they came."""

    count: int = 0
    sum: float = 0.0
    quantiles: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """buckets: (upper bound, cumulative count) as they came; the one of +Inf may be missing. native: the fields of a
    native histogram, encoded; b"" where it is none."""

    count: int = 0
    sum: float = 0.0
    buckets: tuple[tuple[float, int], ...] = ()
    native: bytes = b""


@dataclass(frozen=True, slots=True)
class Metric:
    """kind: which kind of value it has; None where it has none, or several. value: None where it has no number, which
    is an error of the sender. timestamp: ms; None where it has none."""

    labels: Labels
    kind: MetricType | None
    value: float | Summary | Histogram | None
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """type: a MetricType, or another number that the sender uses; None where it is absent."""

    name: str
    type: int | None
    metrics: tuple[Metric, ...]
    help: str = ""


@dataclass(frozen=True, slots=True)
class FamilySample:
    """One sample of what a metric stands for: that of a number, or one of those of a summary or a histogram."""

    name: str
    labels: Labels
    value: float
    timestamp: int | None


def samples_of(family: MetricFamily) -> Iterator[FamilySample]:
    """The samples that the text format has for a family: summaries and histograms as several series, with a bucket of
    +Inf always. Buckets and counts of a native histogram are left out.

    Raises BadInput for a metric without a value.
    """
    name = family.name
    for metric in family.metrics:
        value, labels, stamp = metric.value, metric.labels, metric.timestamp
        if isinstance(value, float):
            yield FamilySample(name, labels, value, stamp)
        elif value is None:
            raise BadInput(f"a metric of the family {shown_name(name)} has no value")
        else:
            if isinstance(value, Summary):
                for quantile, each in value.quantiles:
                    yield FamilySample(name, (*labels, ("quantile", label_float(quantile))), each, stamp)
            else:
                yield from _buckets(name, metric, value)
            yield FamilySample(f"{name}_sum", labels, value.sum, stamp)
            yield FamilySample(f"{name}_count", labels, float(value.count), stamp)


def _buckets(name: str, metric: Metric, value: Histogram) -> Iterator[FamilySample]:
    buckets = list(value.buckets)
    if not any(bound == math.inf for bound, _ in buckets):
        buckets.append((math.inf, value.count))
    for bound, count in buckets:
        labels = (*metric.labels, ("le", label_float(bound)))
        yield FamilySample(f"{name}_bucket", labels, float(count), metric.timestamp)


def at_once(decoding: Generator[None, None, list[MetricFamily]]) -> list[MetricFamily]:
    """What a decoder returns, without the pauses in between."""
    while True:
        try:
            next(decoding)
        except StopIteration as done:
            families: list[MetricFamily] = done.value
            return families


def shown_name(name: str) -> str:
    """A name as it stands in a message."""
    return f'"{name[:80]}…"' if len(name) > 80 else f'"{name}"'
