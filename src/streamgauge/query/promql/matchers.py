"""Label matchers against values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.model.arrays import Bools
from streamgauge.model.frame import ABSENT, LabelFrame
from streamgauge.model.source import Matcher, MatchOp


def anchored(pattern: str) -> str:
    """The RE2 pattern that matches only whole values, where `.` matches a newline too."""
    return f"^(?s:{pattern})$"


def matches(matcher: Matcher, values: pa.StringArray) -> Bools:
    """For each value whether the matcher accepts it. Raises pyarrow.ArrowInvalid for a pattern that RE2 refuses."""
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        # Without a type pyarrow looks for one, and tries to import dateutil each time: half a millisecond.
        accepted = pc.equal(values, pa.scalar(matcher.value, pa.string()))
    else:
        accepted = pc.match_substring_regex(values, anchored(matcher.value))
    result: Bools = accepted.to_numpy(zero_copy_only=False).astype(np.bool_)
    return ~result if matcher.op in (MatchOp.NOT_EQUAL, MatchOp.NOT_MATCH) else result


def matches_empty(matcher: Matcher) -> bool:
    """Whether the matcher accepts a series without the label. Raises as `matches` does."""
    if matcher.op in (MatchOp.EQUAL, MatchOp.NOT_EQUAL):
        return (matcher.value == "") == (matcher.op is MatchOp.EQUAL)
    return bool(matches(matcher, pa.array([""], pa.string()))[0])


def matching_rows(matcher: Matcher, labels: LabelFrame) -> Bools:
    """For each series whether the matcher accepts it."""
    column = labels.columns.get(matcher.name)
    if column is None:
        return np.full(len(labels), matches_empty(matcher))
    by_code = np.append(matches(matcher, column.values), matches_empty(matcher))
    assert ABSENT == -1  # the last entry
    accepted: Bools = by_code[column.codes]
    return accepted
