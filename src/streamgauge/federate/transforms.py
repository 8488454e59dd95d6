"""What is done to scraped metrics before they leave this machine.

In this order, which decides the outcome: labels are set, families renamed, what a server would refuse is removed, each
family is sorted by time, label values are hashed. The labels that the server gives come last (`with_labels`), when a
push is made.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from streamgauge.wire.metric_family import Labels, Metric, MetricFamily, MetricType

MAX_TEXT_BYTES = 255
"""Of a metric's name, a label's name and a label's value: servers refuse a whole push for a longer one."""
MAX_AGE_MS = 86_400_000
"""Servers refuse a whole push for an older sample."""
HASH_BYTES = 9
"""Of SHA-256, that stand for a value: 12 characters, enough for a million values that are not to collide."""
_TYPES = frozenset(MetricType) - {MetricType.GAUGE_HISTOGRAM}


class Reason(StrEnum):
    """Why something is removed: families, metrics, labels."""

    NAME = "its name is empty or longer than 255 bytes"
    TYPE = "its type is none that a server takes"
    NO_TIME = "it has no timestamp"
    OLD = "it is older than 24 hours"
    VALUE = "its value is not of the type of its family"
    LABEL = "the name or value of a label is missing or longer than 255 bytes"


@dataclass(frozen=True, slots=True)
class Transformed:
    """families: with what is left of their metrics. scraped: how many metrics there were. removed: metrics, and
    labels for Reason.LABEL, by reason and name of the family."""

    families: tuple[MetricFamily, ...]
    scraped: int
    removed: Counter[tuple[Reason, str]]

    @property
    def left(self) -> int:
        return sum(len(family.metrics) for family in self.families)


@dataclass(frozen=True)
class Transforms:
    """labels: set on each metric. renames: old names of families to new ones. anonymize: names of labels."""

    labels: Mapping[str, str] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    anonymize: frozenset[str] = frozenset()
    salt: str = field(default="", repr=False)

    @cached_property
    def _hashes(self) -> _Hashes:
        return _Hashes(self.salt)

    def apply(self, families: Iterable[MetricFamily], now: int) -> Transformed:
        """now: ms since the Unix epoch."""
        removed: Counter[tuple[Reason, str]] = Counter()
        scraped = 0
        left = []
        for family in families:
            scraped += len(family.metrics)
            name = self.renames.get(family.name, family.name)
            metrics = [self._labelled(metric) for metric in family.metrics] if self.labels else family.metrics
            valid = _valid(replace(family, name=name, metrics=tuple(metrics)), oldest(now), removed)
            if valid:
                left.append(replace(family, name=name, metrics=self._anonymized(_sorted(valid))))
        return Transformed(tuple(left), scraped, removed)

    def hashed(self, value: str) -> str:
        """What stands for a value of a label that is anonymised."""
        return self._hashes.of(value) if value else value

    def _labelled(self, metric: Metric) -> Metric:
        return replace(metric, labels=with_labels(metric.labels, self.labels))

    def _anonymized(self, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
        if not self.anonymize:
            return tuple(metrics)
        return tuple(
            replace(
                metric, labels=tuple((n, self.hashed(v) if n in self.anonymize and v else v) for n, v in metric.labels)
            )
            for metric in metrics
        )


class _Hashes:
    """Remembers what it hashed: a value occurs in many metrics."""

    _MOST = 65_536

    def __init__(self, salt: str) -> None:
        self._salt = salt.encode()
        self._known: dict[str, str] = {}

    def of(self, value: str) -> str:
        known = self._known.get(value)
        if known is None:
            if len(self._known) >= self._MOST:
                self._known.clear()
            digest = hashlib.sha256(self._salt + value.encode()).digest()[:HASH_BYTES]
            known = self._known[value] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return known


def oldest(now: int) -> int:
    """The earliest time, in ms, that is not too old: in whole seconds, as servers count."""
    return (now - MAX_AGE_MS) // 1000 * 1000


def with_labels(labels: Labels, more: Mapping[str, str]) -> Labels:
    """The labels with some set: in their place where they are there, else behind the others."""
    names = {name for name, _ in labels}
    placed = tuple((name, more.get(name, value)) for name, value in labels)
    return placed + tuple((name, more[name]) for name in sorted(more.keys() - names))


def _valid(family: MetricFamily, least: int, removed: Counter[tuple[Reason, str]]) -> list[Metric]:
    """The metrics of a family that a server takes; the others are counted."""
    name = family.name
    if not name or len(name) > MAX_TEXT_BYTES:
        removed[Reason.NAME, name] += len(family.metrics)
        return []
    if family.type not in _TYPES:
        removed[Reason.TYPE, name] += len(family.metrics)
        return []
    left = []
    for metric in family.metrics:
        labels = tuple(pair for pair in metric.labels if _is_valid(*pair))
        if len(labels) < len(metric.labels):
            removed[Reason.LABEL, name] += len(metric.labels) - len(labels)
            metric = replace(metric, labels=labels)
        reason = _fault(metric, family.type, least)
        if reason is None:
            left.append(metric)
        else:
            removed[reason, name] += 1
    return left


def _is_valid(name: str, value: str | None) -> bool:
    return bool(name) and len(name) <= MAX_TEXT_BYTES and value is not None and len(value.encode()) <= MAX_TEXT_BYTES


def _fault(metric: Metric, kind: int, least: int) -> Reason | None:
    if metric.timestamp is None:
        return Reason.NO_TIME
    if metric.timestamp < least:
        return Reason.OLD
    return None if metric.kind == kind and metric.value is not None else Reason.VALUE


def _sorted(metrics: Iterable[Metric]) -> list[Metric]:
    """By time; those of one time stay in their order."""
    return sorted(metrics, key=lambda metric: metric.timestamp or 0)
