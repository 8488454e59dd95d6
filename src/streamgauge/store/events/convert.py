"""Payloads that are in the columns of one node, to the columns of another.

Whole columns are handed over as they are where both nodes have them. What only the first has, or has in another type,
becomes text. Objects whose rest may have members with a column in the second are put together and divided again.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa

from streamgauge.model.event_source import LeafType, Node
from streamgauge.store.arrow import booleans
from streamgauge.store.arrow import compute as pc
from streamgauge.store.events.assemble import payload_texts
from streamgauge.store.events.shred import divide, struct_of
from streamgauge.store.events.texts import (
    Part,
    Texts,
    escaped,
    leaf_of,
    leaf_texts,
    left_over,
    name_text,
    nulls,
    text_member,
)
from streamgauge.store.events.tree import ARROW_TYPES, REST, struct_type

_MAX_NAMES_SOUGHT = 200
"""Names looked for in rests; where there are more, all rests are divided again."""


class Converter:
    """From payloads of `source` to those of `target`. What comes out has the same meaning, always."""

    def __init__(self, source: Node, target: Node) -> None:
        self._source = source
        self._target = target
        self._same = struct_type(source) == struct_type(target)
        self._positions = {column.name: number for number, column in enumerate(struct_type(source))}
        self._children = {
            name: Converter(child, target.children[name])
            for name, child in source.children.items()
            if name in target.children
        }
        self._gained = _pattern(_gained(source, target))

    def convert(self, payloads: pa.StructArray) -> pa.StructArray:
        if self._same:
            return payloads
        rest = self._column(payloads, REST)
        if self._gained is None or rest.null_count == len(rest):
            return self._by_columns(payloads)
        again = booleans(pc.fill_null(pc.match_substring_regex(rest, self._gained), False))
        if not again.any():
            return self._by_columns(payloads)
        texts = cast("list[str]", payload_texts(_rows(payloads, again)).to_pylist())
        both: Any = pa.concat_arrays(
            [
                self._by_columns(_rows(payloads, ~again)),
                divide([text.encode() for text in texts], self._target),
            ]
        )
        order = np.argsort(np.concatenate((np.flatnonzero(~again), np.flatnonzero(again))))
        return cast("pa.StructArray", both.take(pa.array(order)))

    def _by_columns(self, payloads: pa.StructArray) -> pa.StructArray:
        made: dict[str, pa.Array[Any]] = {}
        rests: list[Part] = []
        for name in (*self._source.leaves, *self._source.children):
            values = self._column(payloads, name)
            if values.null_count == len(values):
                continue
            column, text = self._member(name, values)
            if column is not None:
                made[name] = column
            if text is not None and text.null_count < len(text):
                rests.append(text_member(name, text))
        for field in struct_type(self._target):
            if field.name not in made:
                made[field.name] = nulls(len(payloads), field.type)
        rest = left_over(rests, self._column(payloads, REST), len(payloads))
        return struct_of(self._target, made, rest, pc.is_null(payloads) if payloads.null_count else None)

    def _member(self, name: str, values: Any) -> tuple[pa.Array[Any] | None, Texts | None]:
        """The column of a member in the target, if it has one, and what goes to the rest."""
        if name in self._children:
            return self._children[name].convert(values), None
        if name in self._source.children:
            return None, payload_texts(values)
        wanted = self._target.leaves.get(name)
        if wanted is not None and ARROW_TYPES[wanted] == values.type:
            return values, None
        texts = leaf_texts(values)
        return leaf_of(texts, wanted) if wanted else (None, texts)

    def _column(self, payloads: pa.StructArray, name: str) -> Any:
        return pc.struct_field(payloads, self._positions[name])


def _rows(payloads: pa.StructArray, which: Any) -> pa.StructArray:
    return payloads.filter(pa.array(which))


def _gained(source: Node, target: Node) -> list[str]:
    """Members that have a column in the target and none of this type in the source: values for it are in rests."""
    leaves: list[tuple[str, LeafType]] = [
        (name, leaf) for name, leaf in target.leaves.items() if source.leaves.get(name) != leaf
    ]
    return [name for name, _ in leaves] + [name for name in target.children if name not in source.children]


def _pattern(names: list[str]) -> str | None:
    """Finds objects that may have one of these members."""
    if not names:
        return None
    if len(names) > _MAX_NAMES_SOUGHT:
        return "."
    return "|".join(escaped(name_text(name).removesuffix(":")) for name in names)
