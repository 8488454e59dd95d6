"""info(): enrich series with the labels of info metrics, such as target_info, that share their instance and job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Bools, Int64s
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame
from streamgauge.model.source import Matcher, MatchOp, Meter
from streamgauge.query.promql.frames import METRIC_NAME, column_of, concat, describe, with_columns
from streamgauge.query.promql.matchers import matches_empty, matching_rows
from streamgauge.query.promql.matching import any_present, join
from streamgauge.query.promql.nodes import (
    Aggregate,
    At,
    Binary,
    Call,
    MatrixSelector,
    Node,
    Paren,
    Selector,
    Subquery,
    Unary,
)
from streamgauge.query.promql.segments import Segments
from streamgauge.query.promql.steps import Grid, Steps
from streamgauge.query.promql.values import InstantVector, merge_equal

if TYPE_CHECKING:
    from streamgauge.query.promql.evaluator import Evaluator

IDENTIFYING = ("instance", "job")
"""The labels by which info series and others belong together. Prometheus knows no others either."""

_POSITIVE = (MatchOp.EQUAL, MatchOp.MATCH)


def info(ev: Evaluator, node: Call, grid: Grid) -> InstantVector:
    """Evaluate `info(vector, {data label selector})`.

    Each series gets the labels of the info series that has its instance and job at that step, the one with the latest
    sample if there are several; its own labels win. With matchers on data labels only those labels are added, and
    series without a match go if a matcher demands a value. Raises QueryFailed where two info series contradict.
    """
    base = ev.vector(node.args[0], grid)
    given = node.args[1].matchers if len(node.args) > 1 and isinstance(node.args[1], Selector) else ()
    names = _name_matchers([matcher for matcher in given if matcher.name == METRIC_NAME])
    data = [matcher for matcher in given if matcher.name != METRIC_NAME]
    at, offset = _modifiers(node.args[0]) or (None, 0)
    selector = Selector("", (*names, *data), offset, at, node.position)
    infos, looked = ev.look(selector, grid)
    current = _newest(infos, looked.times)
    own = np.all([matching_rows(matcher, base.labels) for matcher in names], axis=0)
    enriched = _Enriched.of(base, enrich=~own)
    allowed = {matcher.name for matcher in data}
    for name_rows in _by_name(current.labels):
        enriched = enriched.joined(current.take(name_rows), allowed, ev.budget)
    return enriched.result(keep_unmatched=all(map(matches_empty, data)))


def _name_matchers(given: list[Matcher]) -> list[Matcher]:
    if any(matcher.op in _POSITIVE for matcher in given):
        return given
    if given:
        return [Matcher(METRIC_NAME, MatchOp.MATCH, ".+_info"), *given]
    return [Matcher(METRIC_NAME, MatchOp.EQUAL, "target_info")]


def _modifiers(node: Node) -> tuple[At, int] | None:
    """`@` and offset of the first selector in an expression, those of the subqueries around it included."""
    match node:
        case Selector():
            return node.at, node.offset
        case MatrixSelector():
            return node.selector.at, node.selector.offset
        case Subquery():
            found = _modifiers(node.expr)
            if found is not None and found[0] is None:
                return node.at, found[1] + node.offset
            return found
        case Paren() | Unary() | Aggregate():
            return _modifiers(node.expr)
        case Binary():
            return _modifiers(node.lhs) or _modifiers(node.rhs)
        case Call():
            return next(filter(None, map(_modifiers, node.args)), None)
    return None


def _newest(infos: InstantVector, times: Int64s) -> InstantVector:
    """Info series, each only at the steps where it has the latest sample of its name, instance and job."""
    if not len(infos):
        return infos
    group, first = infos.labels.only([METRIC_NAME, *IDENTIFYING]).group()
    segments = Segments(group, len(first))
    present = infos.steps.present
    lowest = times.min(initial=0) - 1
    latest = segments.largest(np.where(present, times, lowest))
    present = present & (times == latest[group])
    clash = np.argwhere(segments.count(present) > 1)
    if len(clash):
        rows = np.flatnonzero((group == clash[0][0]) & present[:, clash[0][1]])[:2].tolist()
        series = " and ".join(describe(infos.labels, row) for row in rows)
        raise QueryFailed(f"found duplicate series for info metric: {series}")
    return infos.with_steps(Steps(infos.steps.values, present))


def _by_name(labels: LabelFrame) -> list[Int64s]:
    """The rows of each metric name."""
    codes = column_of(labels, METRIC_NAME).codes
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


@dataclass(frozen=True, slots=True)
class _Enriched:
    """Base series while labels are added to them. A base series may be here in several rows, one for each set of labels
    that it has at some step.

    rows: the base row of each; present: bool [rows, steps]; added: the labels found so far; enrich: False for series
    that are info series themselves; matched: True where an info series was found.
    """

    base: InstantVector
    rows: Int64s
    present: Bools
    added: LabelFrame
    enrich: Bools
    matched: Bools

    @staticmethod
    def of(base: InstantVector, enrich: Bools) -> _Enriched:
        rows = np.arange(len(base))
        return _Enriched(
            base, rows, base.steps.present, LabelFrame(len(base), {}), enrich, np.zeros(len(base), np.bool_)
        )

    def joined(self, infos: InstantVector, allowed: set[str], meter: Meter) -> _Enriched:
        """With the labels of one info metric."""
        ids = self.base.labels.only(IDENTIFYING).take(self.rows)
        group, first = concat([ids, infos.labels.only(IDENTIFYING)]).group()
        own, theirs = group[: len(ids)], group[len(ids) :]
        anonymous = np.all([column_of(ids, name).codes == ABSENT for name in IDENTIFYING], axis=0)
        own = np.where(self.enrich & ~anonymous, own, len(first))  # a key that nothing has
        found = any_present(theirs, len(first) + 1, infos.steps.present)
        left, right = join(own, theirs)
        meter.charge(len(left) * self.present.shape[1], len(left) * self.present.shape[1])
        paired = self.present[left] & infos.steps.present[right]
        some = paired.any(axis=1)
        left, right, paired = left[some], right[some], paired[some]
        alone = self.present & ~found[own]
        rest = np.flatnonzero(alone.any(axis=1))
        added = self._merged(left, infos.labels.take(right), allowed)
        rows = np.concatenate([left, rest])
        return _Enriched(
            self.base,
            self.rows[rows],
            np.concatenate([paired, alone[rest]]),
            concat([added, self.added.take(rest)]),
            self.enrich[rows],
            np.concatenate([np.ones(len(left), np.bool_), self.matched[rest]]),
        )

    def _merged(self, rows: Int64s, found: LabelFrame, allowed: set[str]) -> LabelFrame:
        added = self.added.take(rows)
        for name, column in found.without([METRIC_NAME]).columns.items():
            if allowed and name not in allowed:
                continue
            pair = concat(
                [LabelFrame(len(rows), {name: column_of(added, name)}), LabelFrame(len(rows), {name: column})]
            )
            old, new = np.split(column_of(pair, name).codes, 2)
            if ((old != ABSENT) & (new != ABSENT) & (old != new)).any():
                raise QueryFailed(f"conflicting label: {name}")
            taken = column_of(self.base.labels, name).codes[self.rows[rows]] != ABSENT
            codes = np.where((old != ABSENT) | taken, old, new)
            added = with_columns(added, {name: LabelColumn(codes, column_of(pair, name).values)})
        return added

    def result(self, *, keep_unmatched: bool) -> InstantVector:
        keep = np.flatnonzero(self.matched | ~self.enrich | keep_unmatched)
        labels = self.base.labels.take(self.rows[keep])
        for name in self.added.columns:
            pair = concat([labels.only([name]), self.added.only([name]).take(keep)])
            own, new = np.split(column_of(pair, name).codes, 2)
            column = LabelColumn(np.where(own == ABSENT, new, own), column_of(pair, name).values)
            labels = with_columns(labels, {name: column})
        steps = Steps(self.base.steps.values[self.rows[keep]], self.present[keep])
        nameless = self.base.nameless[self.rows[keep]]
        return merge_equal(InstantVector(labels, steps, nameless))
