"""A batch: what one scrape gave, as it may leave this machine. And several of them as one push."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from streamgauge.federate.transforms import with_labels
from streamgauge.wire.metric_family import Metric, MetricFamily
from streamgauge.wire.push_part import Part, part

_LABEL_OVERHEAD = 9
"""Bytes, at most, that a label of fewer than 256 takes beside its name and value."""


@dataclass(frozen=True, slots=True)
class Batch:
    """families: none is empty, and the metrics of each are in order of time. part: of a scrape that is pushed in
    several parts."""

    families: tuple[MetricFamily, ...]
    part: Part = Part.WHOLE

    @property
    def metrics(self) -> int:
        return sum(len(family.metrics) for family in self.families)

    @property
    def newest(self) -> int:
        """The time of the newest sample, in ms; 0 where there is none."""
        return max((family.metrics[-1].timestamp or 0 for family in self.families), default=0)


@dataclass(frozen=True, slots=True)
class Push:
    """families: of all batches. last: what of it comes from the newest one. dropped: metrics that had become too old.
    part: where it begins and ends within a scrape."""

    families: tuple[MetricFamily, ...]
    last: tuple[MetricFamily, ...]
    dropped: int
    part: Part


def labels_size(labels: Mapping[str, str]) -> int:
    """Bytes, at most, that these labels add to a metric."""
    return sum(len(name.encode()) + len(value.encode()) + _LABEL_OVERHEAD for name, value in labels.items())


def make_push(batches: Sequence[Batch], labels: Mapping[str, str], least: int) -> Push:
    """One push of batches, the oldest first, with `labels` set and without what is older than `least` (ms).

    Within a family metrics are in order of time, as servers want them. A sample that several batches have, because it
    was the latest at several scrapes, is sent once.
    """
    pieces = [_ready(batch, labels, least) for batch in batches]
    dropped = sum(batch.metrics for batch in batches) - sum(len(f.metrics) for piece in pieces for f in piece)
    families = pieces[0] if len(pieces) == 1 else _merged(pieces)
    if not batches:
        return Push(families, (), dropped, Part.WHOLE)
    return Push(families, pieces[-1], dropped, part(batches[0].part.follows, batches[-1].part.precedes))


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """The batch in two, of about as many metrics each; None when it has but one."""
    half = batch.metrics // 2
    if not half:
        return None
    first: list[MetricFamily] = []
    second: list[MetricFamily] = []
    for family in batch.families:
        head, tail = family.metrics[: max(half, 0)], family.metrics[max(half, 0) :]
        first += [replace(family, metrics=head)] if head else []
        second += [replace(family, metrics=tail)] if tail else []
        half -= len(family.metrics)
    follows, precedes = batch.part.follows, batch.part.precedes
    return Batch(tuple(first), part(follows, True)), Batch(tuple(second), part(True, precedes))


def _ready(batch: Batch, labels: Mapping[str, str], least: int) -> tuple[MetricFamily, ...]:
    families = []
    for family in batch.families:
        kept = [metric for metric in family.metrics if (metric.timestamp or 0) >= least]
        if kept:
            labelled = tuple(replace(metric, labels=with_labels(metric.labels, labels)) for metric in kept)
            families.append(replace(family, metrics=labelled))
    return tuple(families)


def _merged(pieces: Iterable[Sequence[MetricFamily]]) -> tuple[MetricFamily, ...]:
    found: dict[tuple[str, int | None], list[MetricFamily]] = {}
    for piece in pieces:
        for family in piece:
            found.setdefault((family.name, family.type), []).append(family)
    return tuple(replace(same[-1], metrics=_in_order(same)) for same in found.values())


def _in_order(same: Iterable[MetricFamily]) -> tuple[Metric, ...]:
    once = {(metric.labels, metric.timestamp): metric for family in same for metric in family.metrics}
    return tuple(sorted(once.values(), key=lambda metric: metric.timestamp or 0))
