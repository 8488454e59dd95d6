"""Label matchers on dictionaries: each matcher is decided once per distinct value, never per series."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.arrays import Bools, Int32s
from streamgauge.model.frame import ABSENT
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.store import arrow
from streamgauge.store.dictionary import Dictionary

_SPECIAL = re.compile(r"[\\.+*?()\[\]{}^$]")
_NEGATIVE = {MatchOp.NOT_EQUAL, MatchOp.NOT_MATCH}
_EMPTY = pa.array([""], pa.string())
_SHOWN = 200
"""Characters of a regular expression that an error repeats."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a label's value must be: one of `values`, or, if these are None, something in which RE2 finds the anchored
    `regex`. `negated` turns that round. `absent`: whether a series without the label fulfils it, negation included.
    """

    values: frozenset[str] | None
    regex: str
    negated: bool
    absent: bool


def condition_of(matcher: Matcher) -> Condition | None:
    """What a matcher asks for, in its cheapest form; None when every series fulfils it.

    An absent label is the same as an empty one. Raises BadInput, naming the expression, when RE2 refuses it.
    """
    negated = matcher.op in _NEGATIVE
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        return _one_of({matcher.value}, negated)
    regex = matcher.value
    if regex == ".*":
        return _one_of(set(), False) if negated else None
    if regex == ".+":
        return _one_of({""}, not negated)
    if not _SPECIAL.search(regex):
        return _one_of(set(regex.split("|")), negated)
    _search(_EMPTY, regex)  # on its own first: "a)|(b" would become valid inside the group
    anchored = f"^(?s:{regex})$"
    return Condition(None, anchored, negated, negated ^ bool(_search(_EMPTY, anchored)[0].as_py()))


def _one_of(values: set[str], negated: bool) -> Condition:
    return Condition(frozenset(values), "", negated, negated ^ ("" in values))


@dataclass(frozen=True, slots=True)
class Check:
    """A condition in terms of one dictionary's codes: `code` (or its opposite, if `negated`) or a `verdict` per code.

    share: about which part of the series passes; absent: whether those without the label do.
    """

    code: int
    negated: bool
    verdict: Bools | None
    share: float
    absent: bool

    @staticmethod
    def of(condition: Condition, dictionary: Dictionary) -> Check:
        values = dictionary.values
        if condition.values is not None and len(condition.values) == 1:
            (value,) = condition.values
            found = dictionary.find(value) if value else ABSENT
            code = len(values) if found is None else found  # a code that no series has
            share = 1 / (len(values) + 1)
            return Check(code, condition.negated, None, 1 - share if condition.negated else share, condition.absent)
        if condition.values is not None:
            found_values = arrow.compute.is_in(values, pa.array(sorted(condition.values), pa.string()))
        else:
            found_values = _search(values, condition.regex)
        # ABSENT is -1, so that it finds the last item.
        verdict = np.empty(len(values) + 1, np.bool_)
        np.not_equal(arrow.booleans(found_values), condition.negated, out=verdict[:-1])
        verdict[-1] = condition.absent
        return Check(0, False, verdict, float(verdict.mean()), condition.absent)

    def passes(self, codes: Int32s) -> Bools:
        """Which codes fulfil the condition."""
        if self.verdict is not None:
            passing: Bools = self.verdict[codes]
        elif self.negated:
            passing = codes != self.code
        else:
            passing = codes == self.code
        return passing


def _search(values: pa.StringArray, regex: str) -> pa.BooleanArray:
    try:
        return cast("pa.BooleanArray", arrow.compute.match_substring_regex(values, regex))
    except pa.ArrowInvalid as error:
        raise BadInput(f"invalid regular expression {regex[:_SHOWN]!r}: {error}") from error
