"""The rules that a push must keep to, and what becomes of its series, in the order that clients of the reference know.

Families are looked at one after the other, and all metrics of a family by one rule before the next rule: the first
that is broken refuses the whole push, and the message says where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import BadInput, ConfigError, PushRefused
from streamgauge.ingest.federation.settings import PushSettings
from streamgauge.ingest.federation.whitelist import METRIC_NAME, Whitelist
from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.labels import series_key
from streamgauge.wire.metric_family import (
    Histogram,
    Labels,
    Metric,
    MetricFamily,
    MetricType,
    Summary,
    samples_of,
    shown_name,
)

MAX_TEXT_BYTES = 255
"""Of names of metrics and labels and of values, as in the reference."""
HOUR = 3_600_000
MAX_AGE = 24 * HOUR
MAX_AHEAD = 10 * 60_000
"""How far a client's clock may be ahead. Timestamps that are overwritten are checked all the same."""
TENSE = 5 * 60_000
"""A timestamp further from the server's clock is of the past or the future, where timestamps are overwritten."""
PAUSE_METRICS = 64
"""Metrics that are looked at by one rule before other tasks get their turn: half a millisecond."""

_TYPES = tuple(kind for kind in MetricType if kind is not MetricType.GAUGE_HISTOGRAM)
_VALUES = (float, Summary, Histogram)
_SHOWN_LABELS = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """The oldest and the newest time that a sample may have, and the time now; ms."""

    oldest: int
    newest: int
    now: int


@dataclass(frozen=True, slots=True)
class Row:
    """A sample of a push that keeps to all rules. key: of its series as it is stored; None where the whitelist leaves
    it out."""

    key: bytes | None
    time: int
    value: float


class Policy:
    """What the configuration demands. Pure: what it says depends on its arguments alone."""

    def __init__(self, settings: PushSettings) -> None:
        """Raises ConfigError for settings that would take the cluster's label away."""
        self.settings = settings
        self.whitelist = Whitelist(settings.whitelist)
        self._labels = dict(settings.labels)
        self._elided = frozenset(settings.elide_labels)
        for name in (settings.partition_label, METRIC_NAME):
            if name in self._labels or name in self._elided:
                raise ConfigError(f"federation: label and elide-label must leave {name} alone: it tells series apart")

    def bounds(self, now: int, admitted: tuple[int, int]) -> Bounds:
        """admitted: by the store."""
        oldest = (now - MAX_AGE) // 1000 * 1000
        return Bounds(max(oldest, admitted[0]), min(now + MAX_AHEAD, admitted[1]), now)

    def rows(self, family: MetricFamily, required: Mapping[str, str], bounds: Bounds) -> Iterator[Row | None]:
        """The samples of a family; none where it has no type. Raises BadInput and PushRefused.

        None is a pause, so that other tasks get their turn.
        """
        check_order(family)
        yield from check_required(family, required)
        yield from check_content(family, bounds)
        if family.type is None:
            return
        for number, metric in enumerate(family.metrics, 1):
            assert metric.timestamp is not None
            labels = self.relabelled(family.name, _texts(metric.labels))
            yield from _rows_of(family, metric, labels, metric.timestamp)
            if number % PAUSE_METRICS == 0:
                yield None

    def relabelled(self, metric: str, labels: Mapping[str, str]) -> dict[str, str] | None:
        """Labels without the metric's name, as they are stored; None where the whitelist leaves the series out."""
        return self.stored(labels) if self.whitelist.allows(metric, labels) else None

    def stored(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels of a series that the whitelist allows, without the metric's name, as they are stored."""
        return {name: value for name, value in {**labels, **self._labels}.items() if name not in self._elided}

    def in_time(self, times: Int64s, first: Bools, bounds: Bounds) -> tuple[int, int] | None:
        """The first and the last of the times of metrics, where `check_order` and `check_content` find no fault with
        them; (0, 0) where there are none. first: of a family."""
        if not len(times):
            return 0, 0
        oldest, newest = int(np.minimum.reduce(times)), int(np.maximum.reduce(times))
        if oldest < max(bounds.oldest, 0) or newest > bounds.newest:
            return None
        in_order = oldest == newest or not ((times[1:] < times[:-1]) & ~first[1:]).any()
        return (oldest, newest) if in_order else None


def check_order(family: MetricFamily) -> None:
    """Raises BadInput unless each metric has a timestamp, and none is before the one in front of it, or negative."""
    for metric in family.metrics:
        if metric.timestamp is None:
            raise BadInput(f"metrics in provided family do not have a timestamp: {place(family, metric)}")
    before = 0
    for metric in family.metrics:
        assert metric.timestamp is not None
        if metric.timestamp < before:
            what = "metrics in provided family are not in increasing timestamp order"
            raise BadInput(f"{what}: {place(family, metric)}")
        before = metric.timestamp


def check_required(family: MetricFamily, required: Mapping[str, str]) -> Iterator[None]:
    """Raises BadInput for a metric without the labels of its cluster, PushRefused for one with those of another."""
    for number, metric in enumerate(family.metrics, 1):
        if number % PAUSE_METRICS == 0:
            yield
        present: dict[str, str | None] = {}
        for name, value in metric.labels:
            present.setdefault(name, value)
        for name, wanted in required.items():
            value = present.get(name)
            if value is None:
                raise BadInput(f"a required label is missing from the metric: {name} of {place(family, metric)}")
            if value != wanted:
                raise PushRefused(
                    f"expected label {name} to have value {wanted[:MAX_TEXT_BYTES]} instead of "
                    f"{value[:MAX_TEXT_BYTES]}: {place(family, metric)}"
                )


def check_content(family: MetricFamily, bounds: Bounds) -> Iterator[None]:
    """Raises PushRefused for a family that makes no sense, and BadInput for times that cannot be right."""
    if too_long(family.name):
        raise PushRefused(f"metrics_name cannot be longer than 255 characters: family {shown_name(family.name)}")
    if family.type is None:
        return
    if family.type not in _TYPES:
        raise PushRefused(f"unknown metric type {family.type}: family {shown_name(family.name)}")
    kind = MetricType(family.type)
    for number, metric in enumerate(family.metrics, 1):
        if number % PAUSE_METRICS == 0:
            yield
        _check_labels(family, metric)
        assert metric.timestamp is not None
        if metric.timestamp < bounds.oldest:
            what = "metrics in provided family have a timestamp that is too old, check clock skew"
            raise BadInput(f"{what}: {place(family, metric)}")
        if metric.timestamp > bounds.newest:
            what = "metrics in provided family have a timestamp that is too far in the future, check clock skew"
            raise BadInput(f"{what}: {place(family, metric)}")
        if metric.kind is not kind or not isinstance(metric.value, _VALUES):
            what = f"metric type {kind.name} must have {kind.name.lower()} field set, and a value in it"
            raise PushRefused(f"{what}: {place(family, metric)}")


def _check_labels(family: MetricFamily, metric: Metric) -> None:
    seen = {METRIC_NAME}
    for name, value in metric.labels:
        if too_long(name):
            raise PushRefused(f"label_name cannot be longer than 255 characters: {place(family, metric)}")
        if value is None or too_long(value):
            what = "label_value cannot be longer than 255 characters, or be absent"
            raise PushRefused(f"{what}: {shown_name(name)} of {place(family, metric)}")
        if name in seen:
            raise PushRefused(f"label {shown_name(name)} is given twice: {place(family, metric)}")
        seen.add(name)


def place(family: MetricFamily, metric: Metric) -> str:
    """Which metric a message is about."""
    shown = ",".join(f'{name}="{(value or "")[:80]}"' for name, value in metric.labels[:_SHOWN_LABELS])
    more = ",…" if len(metric.labels) > _SHOWN_LABELS else ""
    return f"metric {family.name[:80]}{{{shown}{more}}}"


def _rows_of(family: MetricFamily, metric: Metric, labels: dict[str, str] | None, time: int) -> Iterator[Row]:
    if labels is None:
        yield Row(None, time, 0.0)
        return
    kept = tuple(labels.items())
    alone = MetricFamily(family.name, family.type, (Metric(kept, metric.kind, metric.value, time),))
    for sample in samples_of(alone):
        yield Row(_key(family, metric, sample.name, sample.labels), time, sample.value)


def _key(family: MetricFamily, metric: Metric, name: str, labels: Labels) -> bytes:
    pairs = [(label.encode(), (value or "").encode()) for label, value in labels]
    try:
        return series_key([(METRIC_NAME.encode(), name.encode()), *pairs])
    except BadInput as error:
        raise PushRefused(f"{error.message}: {place(family, metric)}") from None


def _texts(labels: Labels) -> dict[str, str]:
    """Labels that `check_content` has passed: each once, with a value."""
    return {name: value for name, value in labels if value is not None}


def too_long(text: str) -> bool:
    """Of a name or a value."""
    return len(text) > MAX_TEXT_BYTES or (not text.isascii() and len(text.encode()) > MAX_TEXT_BYTES)
