"""Series with all their samples, in the order of their labels: what remote read answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import BadInput
from streamgauge.model.frame import ABSENT, LabelColumn, LabelFrame
from streamgauge.model.source import Matcher, MatchOp, Samples, Selection, Selector, Source, empty_selection
from streamgauge.query.budget import Budget
from streamgauge.query.labels import label_order
from streamgauge.query.requests import RawQuery
from streamgauge.query.text import strings

_SPECIAL = re.compile(r"[\\.+*?()\[\]{}|^$]")
_SHOWN = 200
"""Characters of a value that an error repeats."""


def raw_series(query: RawQuery, source: Source, budget: Budget) -> Iterator[bytes]:
    """What the selectors find, in the query's format.

    External labels are treated as in Prometheus: added to the series that do not have them, and a matcher that asks
    for one with its value finds the series that do not have it. It also finds those that do, since a sender has put
    its own external labels on what it wrote here.

    Raises BadInput for a regular expression that is none, before anything is read.
    """
    for selector in query.selectors:
        for matcher in selector.matchers:
            _check(matcher)
    external = dict(query.external_labels)
    for number, selector in enumerate(query.selectors):
        for piece in query.format.encode(number, _selected(selector, source, budget, external)):
            budget.check()
            yield piece


def selector_text(selector: Selector) -> str:
    """Its matchers, as PromQL has them."""
    pairs = (f"{each.name}{each.op.value}{json.dumps(each.value, ensure_ascii=False)}" for each in selector.matchers)
    return f"{{{','.join(pairs)}}}"


def _check(matcher: Matcher) -> None:
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        return
    try:
        pc.match_substring_regex(strings([""]), matcher.value)
    except pa.ArrowInvalid as error:
        shown = matcher.value[:_SHOWN]
        raise BadInput(f"invalid regular expression {shown!r} of label {matcher.name[:_SHOWN]!r}: {error}") from None


def _selected(selector: Selector, source: Source, budget: Budget, external: Mapping[str, str]) -> Selection:
    if selector.start > selector.end:
        return empty_selection()
    matchers = [_or_absent(matcher, external) for matcher in selector.matchers]
    found = source.select(matchers, selector.start, selector.end, budget)
    order = label_order(found.labels)
    labels, samples = found.labels.take(order), found.samples
    if (np.diff(order) != 1).any():
        budget.charge(0, 16 * len(samples.times))
        samples = samples.take(order)
    return _united(Selection(_with_defaults(labels, external), samples)) if external else Selection(labels, samples)


def _or_absent(matcher: Matcher, external: Mapping[str, str]) -> Matcher:
    """A matcher that asks for an external label's own value also accepts series without the label."""
    if matcher.op is MatchOp.EQUAL and matcher.value and external.get(matcher.name) == matcher.value:
        return Matcher(matcher.name, MatchOp.MATCH, "|" + _SPECIAL.sub(r"\\\g<0>", matcher.value))
    return matcher


def _with_defaults(labels: LabelFrame, defaults: Mapping[str, str]) -> LabelFrame:
    """Labels that the series have which lack them."""
    columns = dict(labels.columns)
    absent = LabelColumn(np.full(len(labels), ABSENT, np.int32), strings(()))
    for name, value in defaults.items():
        column = columns.get(name, absent)
        values: Any = column.values
        code = int(pc.index(values, value).as_py())
        if code < 0:  # it is not there
            code, values = len(values), pa.concat_arrays([values, strings([value])])
        columns[name] = LabelColumn(np.where(column.codes == ABSENT, code, column.codes).astype(np.int32), values)
    return LabelFrame(len(labels), columns)


def _united(selection: Selection) -> Selection:
    """Series that external labels have made equal, as one."""
    group, first = selection.labels.group()
    if len(first) == len(group):
        return selection
    samples = selection.samples
    owner = np.repeat(group, np.diff(samples.offsets))
    order = np.lexsort((samples.times, owner))  # stable: of equal times the last stays last
    owner, times = owner[order], samples.times[order]
    last = np.append((np.diff(owner) != 0) | (np.diff(times) != 0), True)
    counts = np.bincount(owner[last], minlength=len(first))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    united = Samples(offsets, times[last], samples.values[order][last])
    return Selection(selection.labels.take(first), united)
