"""Functions on labels: label_replace, label_join, the sort functions, and the labels that absent() makes up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamgauge.errors import QueryFailed
from streamgauge.model.arrays import Bools, Int32s, Int64s
from streamgauge.model.frame import ABSENT, LabelColumn
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.query.promql.frames import (
    METRIC_NAME,
    column_of,
    compact,
    dropping_empty,
    encode,
    order,
    recode,
    with_columns,
)
from streamgauge.query.promql.matchers import anchored
from streamgauge.query.promql.values import InstantVector, merge_equal

_GROUP = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\((?:\?P?<(?P<name>\w+)>|(?P<other>\?))?", re.DOTALL)
"""What can hide or open a capturing group: an escape, a character class, an opening parenthesis."""

_REFERENCE = re.compile(r"\$(?:\$|(?P<name>\w+)|\{(?P<braced>\w+)\})", re.ASCII)


def label_replace(vector: InstantVector, target: str, replacement: str, source: str, pattern: str) -> InstantVector:
    """Where the value of `source` matches `pattern` as a whole, set `target` to `replacement`, in which $1, ${1} and
    ${name} stand for what the groups matched. Raises QueryFailed for a bad pattern or label name.
    """
    _check_label(target, "destination", "label_replace")
    column = compact(column_of(vector.labels, source))
    texts = pa.concat_arrays([column.values, pa.array([""], pa.string())])
    matched, replaced = _expand(texts, pattern, replacement)
    result = _either(column.codes, matched, replaced, column_of(vector.labels, target))
    return _with_label(vector, target, result, matched[column.codes])


def _expand(texts: pa.StringArray, pattern: str, replacement: str) -> tuple[Bools, pa.StringArray]:
    """For each text whether it matches, and the replacement for it."""
    numbered, names = _name_groups(pattern)
    try:
        matched = pc.match_substring_regex(texts, anchored(pattern)).to_numpy(zero_copy_only=False)
        groups = pc.extract_regex(texts, anchored(f"(?P<g0>{numbered})"))
    except pa.ArrowInvalid:
        raise QueryFailed(f"invalid regular expression in label_replace(): {pattern}") from None
    pieces: list[pa.StringArray | str] = []
    end = 0
    for reference in _REFERENCE.finditer(replacement):
        pieces.append(replacement[end : reference.start()])
        end = reference.end()
        name = reference.group("name") or reference.group("braced")
        if name is None:
            pieces.append("$")
        elif group := names.get(name):
            pieces.append(pc.fill_null(pc.struct_field(groups, group), ""))
    pieces.append(replacement[end:])
    columns = [pa.array([piece] * len(texts), pa.string()) if isinstance(piece, str) else piece for piece in pieces]
    return matched.astype(np.bool_), _joined(columns, "")


def _name_groups(pattern: str) -> tuple[str, dict[str, str]]:
    """The pattern with a name for each capturing group, and by which names a replacement may refer to each."""
    names = {"0": "g0"}
    count = 0

    def rename(match: re.Match[str]) -> str:
        nonlocal count
        if not match.group().startswith("(") or match.group("other"):
            return match.group()
        count += 1
        names[str(count)] = f"g{count}"
        if match.group("name"):
            names[match.group("name")] = f"g{count}"
        return f"(?P<g{count}>"

    return _GROUP.sub(rename, pattern), names


def _either(
    codes: Int32s,
    matched: Bools,
    replaced: pa.StringArray,
    old: LabelColumn,
) -> LabelColumn:
    """The replaced text where the code's text matched, else the old value. The last entry is of ABSENT codes."""
    new = encode(replaced)
    old = compact(old)
    values = pa.concat_arrays([new.values, old.values])
    old_codes = np.where(old.codes == ABSENT, np.int32(ABSENT), old.codes + np.int32(len(new.values)))
    mixed = np.where(matched[codes], new.codes[codes], old_codes).astype(np.int32)
    return _distinct(LabelColumn(mixed, values))


def _distinct(column: LabelColumn) -> LabelColumn:
    """The column with each text once in its dictionary."""
    values = pc.unique(column.values)
    mapping = pc.index_in(column.values, value_set=values).to_numpy(zero_copy_only=False).astype(np.int32)
    return dropping_empty(recode(column.codes, mapping, values))


def label_join(vector: InstantVector, target: str, separator: str, sources: Sequence[str]) -> InstantVector:
    """Set `target` to the values of `sources` with `separator` between them. Raises QueryFailed for a bad name."""
    for source in sources:
        _check_label(source, "source", "label_join")
    _check_label(target, "destination", "label_join")
    keys = vector.labels.only(sources)
    group, first = keys.group()
    parts = [_texts(column_of(keys, source).take(first)) for source in sources]
    joined = _joined(parts, separator) if parts else pa.array([""] * len(first), pa.string())
    column = encode(joined)
    result = LabelColumn(column.codes[group], column.values)
    return _with_label(vector, target, result, np.ones(len(vector), np.bool_))


def _joined(columns: list[pa.StringArray], separator: str) -> pa.StringArray:
    # The stubs want one type for all arguments, the function wants a scalar as separator.
    join: Any = pc.binary_join_element_wise
    joined: pa.StringArray = join(*columns, separator)
    return joined


def _texts(column: LabelColumn) -> pa.StringArray:
    """One text a row, "" where the label is absent."""
    column = compact(column)
    values = pa.concat_arrays([column.values, pa.array([""], pa.string())])
    return values.take(np.where(column.codes == ABSENT, len(column.values), column.codes))


def _with_label(vector: InstantVector, name: str, column: LabelColumn, changed: Bools) -> InstantVector:
    nameless = vector.nameless & ~changed if name == METRIC_NAME else vector.nameless
    return merge_equal(replace(vector, labels=with_columns(vector.labels, {name: column}), nameless=nameless))


def _check_label(name: str, what: str, function: str) -> None:
    if not name:
        raise QueryFailed(f'invalid {what} label name in {function}(): "{name}"')


def sort_by_value(vector: InstantVector, *, descending: bool) -> InstantVector:
    """The rows of an instant query in order of their values; NaN last."""
    vector = vector.present_only()
    values = vector.steps.values[:, 0]
    by_value = np.argsort(-values if descending else values, kind="stable")
    return replace(vector.take(by_value), ordered=True)


def sort_by_labels(vector: InstantVector, names: Sequence[str], *, descending: bool) -> InstantVector:
    """The rows in natural order (a2 before a10) of these labels, then of all labels."""
    rank = np.empty(len(vector), np.int64)
    rank[order(vector.labels)] = np.arange(len(vector))
    keys = [rank, *(_natural_ranks(column_of(vector.labels, name)) for name in reversed(names))]
    rows = np.lexsort([-key if descending else key for key in keys])
    return replace(vector.take(rows), ordered=True)


def _natural_ranks(column: LabelColumn) -> Int64s:
    column = compact(column)
    texts = ["", *map(str, column.values.to_pylist())]
    places = {text: place for place, text in enumerate(sorted(texts, key=_natural_key))}
    by_code = np.array([places[text] for text in texts], np.int64)
    return by_code[column.codes + 1]


def _natural_key(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Runs of digits compare as numbers (by length, then by digits, without leading zeros) and before other text."""
    numbers = ((chunk.lstrip("0"), chunk) for chunk in re.findall(r"[0-9]+|[^0-9]+", text))
    return tuple((0, len(bare), bare) if chunk[0] in "0123456789" else (1, 0, chunk) for bare, chunk in numbers), text


def absent_labels(matchers: Sequence[Matcher]) -> dict[str, str]:
    """The labels that a series of this selector would have, as Prometheus guesses them: a label's first `=` matcher
    gives it its value, and any matcher of the label after that takes it away again."""
    labels: dict[str, str] = {}
    settled: set[str] = set()
    for matcher in matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.op is MatchOp.EQUAL and matcher.name not in settled:
            labels[matcher.name] = matcher.value
            settled.add(matcher.name)
        else:
            labels.pop(matcher.name, None)
    return {name: value for name, value in labels.items() if value}
