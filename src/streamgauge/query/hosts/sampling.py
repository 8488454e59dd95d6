"""A sample of each host, from counters that are stored: what they gained between two moments.

A counter that went down, as after a restart, has gained nothing. So has one that was not there before, unless its
program already counted requests of that host: then it began within this time, as those of errors do at the first one.
What several programs say of one host is added up, and a quantile is of the sum of their histograms.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from streamgauge.errors import QueryCanceled, QueryTimeout, StreamgaugeError
from streamgauge.model.arrays import Bools, Floats
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame, empty_frame
from streamgauge.model.host_history import LARGEST, QUANTILE, HostSample, HostSource
from streamgauge.model.source import Source
from streamgauge.query.budget import Budget
from streamgauge.query.promql.engine import evaluate
from streamgauge.query.promql.histogram import histogram_quantile
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.requests import HostSamplesQuery
from streamgauge.query.result import Matrix

INSTANCE = ("job", "instance")
"""Labels of one program: its counters began together."""
HOST = "host"
LE = "le"

Key = tuple[str, ...]
"""The host, and the labels that samples keep."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """Values at two moments, by program and host. values: [groups, 2], 0 where not present."""

    labels: LabelFrame
    values: Floats
    present: Bools

    def gains(self, began: Bools) -> Floats:
        """What each has gained. began: which of those that were not there before began at 0 since then."""
        gained = self.values[:, 1] - self.values[:, 0]
        counts = self.present[:, 1] & (self.present[:, 0] | began)
        return np.where(counts & (gained > 0), gained, 0.0)


def sampled(query: HostSamplesQuery, source: Source, budget: Budget) -> bytes:
    """The samples of all sources as JSON. A source that cannot be evaluated is named, and takes no other with it."""
    found: dict[Key, HostSample] = {}
    failures = {}
    for each in query.sources:
        try:
            for key, sample in _Sampling(each, query, source, budget).samples().items():
                found.setdefault(key, sample)
        except (QueryTimeout, QueryCanceled):
            raise
        except StreamgaugeError as error:
            failures[each.name] = error.message
    names = (HOST, *query.by)
    rows = [[dict(zip(names, key, strict=True)), *_values(sample)] for key, sample in found.items()]
    return json.dumps({"samples": rows, "failures": failures}, ensure_ascii=False, allow_nan=False).encode()


def _values(sample: HostSample) -> tuple[float, ...]:
    return sample.requests_sec, sample.p99_ms, sample.error_rate, sample.active_backends


class _Sampling:
    """The samples of one source."""

    def __init__(self, host_source: HostSource, query: HostSamplesQuery, source: Source, budget: Budget) -> None:
        self._of = host_source
        self._query = query
        self._source = source
        self._budget = budget
        self._known: set[Key] = set()  # programs and hosts that were there before

    def samples(self) -> dict[Key, HostSample]:
        requests = self._groups(self._of.requests)
        there_before, there_now = requests.present[:, 0].tolist(), requests.present[:, 1].tolist()
        self._known = set(itertools.compress(self._programs(requests.labels), there_before))
        keys = self._keys(requests.labels)
        hosts = dict.fromkeys(key for key in itertools.compress(keys, there_now) if key[0])
        if not hosts:
            return {}
        asked = _summed(keys, self._gains(requests))
        failed = self._gained(self._of.errors)
        instances = itertools.compress(zip(keys, _texts(requests.labels, INSTANCE), strict=True), there_now)
        quantiles, backends = self._quantiles(), self._backends(set(instances))
        return {
            key: self._sample(asked.get(key, 0.0), failed.get(key, 0.0), quantiles.get(key, 0.0), backends.get(key, 0))
            for key in hosts
        }

    def _sample(self, requests: float, errors: float, quantile: float, backends: int) -> HostSample:
        now = self._query.now // 1000
        if not requests:  # also in the minute of a restart, when the buckets are no use either
            return HostSample(now, active_backends=backends)
        per_second = requests * 1000 / (self._query.now - self._query.since)
        return HostSample(now, per_second, quantile, min(100.0 * errors / requests, 100.0), backends)

    def _gained(self, expression: str) -> dict[Key, float]:
        groups = self._groups(expression)
        return _summed(self._keys(groups.labels), self._gains(groups))

    def _gains(self, groups: _Groups) -> Floats:
        known = [program in self._known for program in self._programs(groups.labels)]
        return groups.gains(np.array(known, np.bool_))

    def _quantiles(self) -> dict[Key, float]:
        """In ms, of the hosts that had requests."""
        groups = self._groups(self._of.latency, (LE,))
        labels = groups.labels.only((HOST, *self._query.by, LE))
        number, first = labels.group()
        summed = np.zeros((len(first), 1))
        np.add.at(summed[:, 0], number, self._gains(groups))
        found = histogram_quantile(
            labels.take(first), Steps(summed, np.ones(summed.shape, np.bool_)), np.array([QUANTILE])
        )
        values = found.steps.values[:, 0] * self._of.unit
        keys = self._keys(found.labels)
        return {key: value for key, value in zip(keys, values.tolist(), strict=True) if math.isfinite(value)}

    def _backends(self, instances: Collection[tuple[Key, Key]]) -> dict[Key, int]:
        """How many there are at the second moment. instances: which of them each host has."""
        groups = self._groups(self._of.backends)
        alive = np.where(groups.present[:, 1], groups.values[:, 1], 0.0)
        named = self._keys(groups.labels)
        found = _summed([key if key[0] else None for key in named], alive)
        theirs = _texts(groups.labels, INSTANCE)
        of_instances = _summed([None if key[0] else one for key, one in zip(named, theirs, strict=True)], alive)
        for key, instance in instances if of_instances else ():
            found[key] = found.get(key, 0.0) + of_instances.get(instance, 0.0)
        return {key: round(max(value, 0.0)) for key, value in found.items()}

    def _groups(self, expression: str, more: tuple[str, ...] = ()) -> _Groups:
        """What an expression is at the two moments, added up by program and host."""
        labels, values, present = self._evaluated(expression) if expression else _nothing()
        chosen = {name: labels.columns[name] for name in (*INSTANCE, *self._query.by, *more) if name in labels.columns}
        kept = LabelFrame(len(labels), {**chosen, HOST: self._host(labels)})
        number, first = kept.group()
        usable = present & (np.abs(np.where(present, values, 0.0)) <= LARGEST)
        sums = np.zeros((len(first), 2))
        np.add.at(sums, number, np.where(usable, values, 0.0))
        there = np.zeros((len(first), 2), np.bool_)
        np.logical_or.at(there, number, usable)
        return _Groups(kept.take(first), sums, there)

    def _evaluated(self, expression: str) -> tuple[LabelFrame, Floats, Bools]:
        query = self._query
        grid = Grid(query.since, query.now - query.since, 2)
        found = evaluate(expression, self._source, grid, self._budget, lookback=query.lookback, instant=False).result
        assert isinstance(found, Matrix)
        return found.labels, found.values, found.present

    def _host(self, labels: LabelFrame) -> LabelColumn:
        """The column that names the host: for each series the first of the labels that it has."""
        texts = [""] * len(labels)
        for name in self._of.host:
            if name in labels.columns:
                texts = [text or more for text, (more,) in zip(texts, _texts(labels, (name,)), strict=True)]
        return LabelFrame.of([{HOST: text} for text in texts]).columns.get(HOST, _absent(len(labels)))

    def _programs(self, labels: LabelFrame) -> list[Key]:
        return _texts(labels, (*INSTANCE, HOST, *self._query.by))

    def _keys(self, labels: LabelFrame) -> list[Key]:
        return _texts(labels, (HOST, *self._query.by))


def _nothing() -> tuple[LabelFrame, Floats, Bools]:
    return empty_frame(), np.zeros((0, 2)), np.zeros((0, 2), np.bool_)


def _absent(rows: int) -> LabelColumn:
    return LabelColumn(np.full(rows, ABSENT, np.int32), LabelFrame.of([{HOST: "-"}]).columns[HOST].values)


def _texts(labels: LabelFrame, names: Sequence[str]) -> list[Key]:
    """The values of some labels, for each row; "" for one that it does not have."""
    columns = (labels.columns.get(name) for name in names)
    return list(zip(*([""] * len(labels) if each is None else _column(each) for each in columns), strict=True))


def _column(column: LabelColumn) -> list[str]:
    """The value in each row. Only what is used of the dictionary is looked at: it may be that of the whole store."""
    used, places = np.unique(column.codes, return_inverse=True)
    values = column.values.take(np.maximum(used, 0)).to_pylist() if len(column.values) else [""]
    if len(used) and used[0] == ABSENT:
        values[0] = ""
    return [values[place] for place in places.tolist()]


def _summed(keys: Sequence[Key | None], values: Floats) -> dict[Key, float]:
    """What belongs to each key, added up; what belongs to none is left out."""
    sums: dict[Key, float] = {}
    for key, value in zip(keys, values.tolist(), strict=True):
        if key is not None:
            sums[key] = sums.get(key, 0.0) + value
    return sums
