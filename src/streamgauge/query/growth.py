"""Which series there are, how many are new, since when, and from where: what somebody asks whose server fills up.

All of it follows from when each series had its first and its last sample; nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame
from streamgauge.model.source import Lifetimes
from streamgauge.query.budget import Budget
from streamgauge.query.requests import GroupBy, GrowthQuery, Order

EXPLAINED = 10
"""Groups of which is said what made them grow: each takes a look at all labels of its new series."""
BEGINNING = 10
"""Growth begins with the first bucket that has at least this part of what the largest has, and within it when this part
has come."""
_ROW_BYTES = 100
"""While series are counted: of each, its times, what it counts for, its group and place in order."""


@dataclass(frozen=True, slots=True)
class Group:
    """What is known of some series, or of a label's values. cause: what made it grow."""

    name: str
    labels: Mapping[str, str]  # that all its series have; "" stands for one that they do not have
    sizes: Mapping[Order, int]
    since: int | None  # ms, when it began to grow; None when it did not
    growth: Sequence[int]  # how many were created in each bucket
    cause: Mapping[str, object]

    def as_json(self) -> dict[str, object]:
        sizes = {order.value: size for order, size in self.sizes.items()}
        since = None if self.since is None else self.since / 1000
        return {**sizes, "since": since, "growth": self.growth, **self.cause}


@dataclass(frozen=True, slots=True)
class _Lives:
    """Of series, or of values, that came no later than the end of the window: what each counts for."""

    first: Int64s
    active: Bools
    created: Bools
    ended: Bools
    bucket: Int64s  # in which it was created; anything where it was not

    @staticmethod
    def of(first: Int64s, last: Int64s, query: GrowthQuery) -> _Lives:
        created, active = first >= query.start, last >= query.end - query.idle
        bucket = np.minimum((first - query.start) // _width(query), query.buckets - 1)
        return _Lives(first, active, created, ~active & (last >= query.start), bucket)

    def take(self, rows: Int64s) -> _Lives:
        return _Lives(self.first[rows], self.active[rows], self.created[rows], self.ended[rows], self.bucket[rows])


@dataclass(frozen=True, slots=True)
class _Counts:
    """For each group."""

    series: Int64s
    active: Int64s
    created: Int64s
    ended: Int64s

    @staticmethod
    def of(lives: _Lives, codes: Int64s, groups: int) -> _Counts:
        """codes: the group of each of `lives`, from 0 up to `groups`."""
        flags = (lives.active, lives.created, lives.ended)
        return _Counts(*(np.bincount(some, minlength=groups) for some in (codes, *(codes[flag] for flag in flags))))

    def by(self, order: Order) -> Int64s:
        by: Int64s = getattr(self, order.value)
        return by

    def largest(self, order: Order, limit: int) -> Int64s:
        """The groups that have something of what is ordered by, the largest first."""
        sizes = self.by(order)
        some = np.flatnonzero(sizes)
        if len(some) > limit:
            some = some[np.argpartition(-sizes[some], limit - 1)[:limit]]
        largest: Int64s = some[np.argsort(-sizes[some], kind="stable")]
        return largest


@dataclass(frozen=True, slots=True)
class _Grouping:
    """A way to divide the series: rows[i] is in group codes[i]. The others are in none."""

    rows: Int64s
    codes: Int64s
    groups: int
    named: Callable[[int], tuple[str, dict[str, str]]]  # the name of a group, and the labels that its series share


def growth(lives: Lifetimes, query: GrowthQuery, budget: Budget) -> dict[str, object]:
    """The `data` of the answer; times in seconds. Raises QueryFailed when the budget does not allow it."""
    budget.charge(0, _ROW_BYTES * len(lives.first))
    there = np.flatnonzero(lives.first <= query.end)
    if len(there) < len(lives.first):
        lives = Lifetimes(lives.labels.take(there), lives.first[there], lives.last[there])
    seen = _Lives.of(lives.first, lives.last, query)
    everything = _Grouping(np.arange(len(there)), np.zeros(len(there), np.int64), 1, lambda _: ("", {}))
    (total,) = _described(seen, everything, np.zeros(1, np.int64), query)
    answer = {
        "start": query.start / 1000,
        "end": query.end / 1000,
        "step": _width(query) / 1000,
        "total": total.as_json(),
    }
    if query.by is GroupBy.LABEL:
        labels = [{"name": group.name, **_of_values(group)} for group in _labels(lives, query, budget)]
        return {**answer, "groups": labels}
    groups = _largest(lives.labels, seen, query, budget)
    return {**answer, "groups": [{"name": one.name, "labels": one.labels, **one.as_json()} for one in groups]}


def _of_values(group: Group) -> dict[str, object]:
    values = group.as_json()
    return {"values": values.pop(Order.SERIES.value), **values}


def _width(query: GrowthQuery) -> int:
    """Of a bucket, ms. The last one has `end` in it as well."""
    return -(-(query.end - query.start) // query.buckets)


# ---- groups of series -----------------------------------------------------------------------------------------------


def _largest(frame: LabelFrame, lives: _Lives, query: GrowthQuery, budget: Budget) -> list[Group]:
    found: list[Group] = []
    for grouping in _groupings(frame, query):
        budget.check()
        counts = _Counts.of(lives.take(grouping.rows), grouping.codes, grouping.groups)
        chosen = counts.largest(query.order, query.limit)
        if len(found) == query.limit:
            chosen = chosen[counts.by(query.order)[chosen] > found[-1].sizes[query.order]]
        if len(chosen):
            found = _ordered([*found, *_described(lives, grouping, chosen, query)], query)
    for at, group in enumerate(found[:EXPLAINED]):
        budget.check()
        if group.sizes[Order.CREATED]:
            found[at] = replace(group, cause=_cause(frame, lives, group.labels))
    return found


def _ordered(groups: Sequence[Group], query: GrowthQuery) -> list[Group]:
    return sorted(groups, key=lambda group: (-group.sizes[query.order], group.name))[: query.limit]


def _groupings(frame: LabelFrame, query: GrowthQuery) -> Iterator[_Grouping]:
    if query.by is GroupBy.PAIR:
        for name, column in frame.columns.items():
            rows = np.flatnonzero(column.codes != ABSENT)
            yield _Grouping(rows, column.codes[rows].astype(np.int64), len(column.values), _pair(name, column))
        return
    group, first = frame.only(query.names).group()
    yield _Grouping(np.arange(len(frame)), group, len(first), _values(frame, first, query.names))


def _pair(name: str, column: LabelColumn) -> Callable[[int], tuple[str, dict[str, str]]]:
    def named(code: int) -> tuple[str, dict[str, str]]:
        value = str(column.values[code].as_py())
        return f"{name}={value}", {name: value}

    return named


def _values(frame: LabelFrame, first: Int64s, names: Sequence[str]) -> Callable[[int], tuple[str, dict[str, str]]]:
    def named(group: int) -> tuple[str, dict[str, str]]:
        columns = [(name, frame.columns.get(name)) for name in names]
        labels = {name: "" if column is None else column.text(int(first[group])) for name, column in columns}
        return ",".join(labels.values()), labels

    return named


def _described(lives: _Lives, grouping: _Grouping, chosen: Int64s, query: GrowthQuery) -> list[Group]:
    """What is known of the chosen groups, but for causes."""
    rank = np.full(grouping.groups, ABSENT)
    rank[chosen] = np.arange(len(chosen))
    ranks = rank[grouping.codes]
    inside = np.flatnonzero(ranks >= 0)
    some, ranks = lives.take(grouping.rows[inside]), ranks[inside]
    counts = _Counts.of(some, ranks, len(chosen))
    created = np.flatnonzero(some.created)
    cells = ranks[created] * query.buckets + some.bucket[created]
    histogram = np.bincount(cells, minlength=len(chosen) * query.buckets).reshape(len(chosen), query.buckets)
    since = _since(histogram, some.first[created], ranks[created], some.bucket[created])
    sizes = {order: counts.by(order) for order in Order}
    return [
        Group(
            *grouping.named(code),
            {order: int(size[at]) for order, size in sizes.items()},
            int(since[at]) if counts.created[at] else None,
            histogram[at].tolist(),
            {},
        )
        for at, code in enumerate(chosen.tolist())
    ]


def _since(histogram: Int64s, first: Int64s, ranks: Int64s, buckets: Int64s) -> Int64s:
    """When the growth of each group began, ms; 0 for one that has none.

    That is in the first bucket that has a good part of what the largest has, when a good part of its own had come: the
    few that come and go all the time do not count.
    """
    begun = (histogram * BEGINNING >= histogram.max(axis=1, initial=0)[:, None]).argmax(axis=1)
    there = np.flatnonzero(buckets == begun[ranks])
    there = there[np.lexsort((first[there], ranks[there]))]
    counts = np.bincount(ranks[there], minlength=len(histogram))
    grown = np.flatnonzero(counts)
    since = np.zeros(len(histogram), np.int64)
    since[grown] = first[there][(np.cumsum(counts) - counts + counts // BEGINNING)[grown]]
    return since


def _cause(frame: LabelFrame, lives: _Lives, labels: Mapping[str, str]) -> dict[str, object]:
    """What the new series of a group differ in, and which job most of them come from."""
    rows = np.flatnonzero(lives.created)
    for name, value in labels.items():
        rows = rows[_has(frame, name, value, rows)]
    most, busiest = 1, ""
    for name in sorted(frame.columns.keys() - labels.keys()):
        used = np.zeros(len(frame.columns[name].values) + 1, np.bool_)
        used[frame.columns[name].codes[rows]] = True
        distinct = int(np.count_nonzero(used[:-1]))  # ABSENT, -1, is the last
        if distinct > most:
            most, busiest = distinct, name
    cause: dict[str, object] = {}
    if busiest:
        cause["label"] = {"name": busiest, "values": most}
    job = frame.columns.get("job")
    if job is not None and "job" not in labels:
        codes = job.codes[rows]
        counts = np.bincount(codes[codes != ABSENT], minlength=1)
        if counts.any():
            cause["job"] = {"value": str(job.values[int(counts.argmax())]), "series": int(counts.max())}
    return cause


def _has(frame: LabelFrame, name: str, value: str, rows: Int64s) -> Bools:
    column = frame.columns.get(name)
    if column is None:
        return np.full(len(rows), not value)
    code = column.values.index(value).as_py() if value else ABSENT
    has: Bools = column.codes[rows] == code
    return has


# ---- labels, by their values ----------------------------------------------------------------------------------------


def _labels(lives: Lifetimes, query: GrowthQuery, budget: Budget) -> list[Group]:
    """Each label as a group of its distinct values; a value lives from its first series to its last."""
    newest_first, latest_last = np.argsort(-lives.first), np.argsort(lives.last)
    found: list[Group] = []
    for name, column in lives.labels.columns.items():
        budget.check()
        first, last = np.empty((2, len(column.values) + 1), np.int64)
        first[column.codes[newest_first]] = lives.first[newest_first]  # of equal codes the last assignment stays
        last[column.codes[latest_last]] = lives.last[latest_last]
        used = np.zeros(len(column.values) + 1, np.bool_)
        used[column.codes] = True
        values = np.flatnonzero(used[:-1])  # ABSENT, -1, is the last
        grouping = _Grouping(np.arange(len(values)), np.zeros(len(values), np.int64), 1, partial(_label, name))
        found += _described(_Lives.of(first[values], last[values], query), grouping, np.zeros(1, np.int64), query)
    return _ordered([group for group in found if group.sizes[query.order]], query)


def _label(name: str, group: int) -> tuple[str, dict[str, str]]:
    return name, {}
