"""Values of payloads from the columns of one part, as SQL.

At each level a payload's member is in a column of its own, in an object's columns, or in the level's rest; where it may
be in several the first that is not null is it, since no member is in two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from streamgauge.model.event_source import Column, Fixed, Leaf, LeafType, Node, Present, Rest
from streamgauge.query.sql.json_path import written
from streamgauge.query.sql.json_values import as_sql, of_text, quoted
from streamgauge.query.sql.relations import Path, Use

_ARROW: dict[LeafType, pa.DataType] = {
    LeafType.BOOL: pa.bool_(),
    LeafType.INT: pa.int64(),
    LeafType.DOUBLE: pa.float64(),
    LeafType.TEXT: pa.string(),
}
_TYPES = {LeafType.BOOL: "BOOLEAN", LeafType.INT: "BIGINT", LeafType.DOUBLE: "DOUBLE", LeafType.TEXT: "VARCHAR"}
NUMBERS = frozenset({"BIGINT", "HUGEINT", "DOUBLE"})
"""Natural types that are numbers. The others are BOOLEAN, VARCHAR and JSON."""

_LONG = 19
"""Digits with which a number may be too large for a BIGINT."""


def natural(types: set[str]) -> str:
    """The type for values of these types: VARCHAR for several that have nothing in common."""
    for common in ({"BIGINT"}, {"BIGINT", "HUGEINT"}, {"BIGINT", "HUGEINT", "DOUBLE"}):
        if types and types <= common:
            return next(each for each in ("DOUBLE", "HUGEINT", "BIGINT") if each in common)
    return types.pop() if len(types) == 1 else "VARCHAR"


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a value may be: in a column (`leaf`), in those of an object (`child`), or at a path in a rest."""

    at: tuple[str, ...]
    leaf: LeafType | None = None
    child: Node | None = None
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Instant:
    """A leaf of texts as times, us since 1970 as int64 (see `instants`), or the texts that are none."""

    path: tuple[str, ...]
    others: bool = False


class PartColumns:
    """Writes expressions over the columns of one part, and keeps count of which they need."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._columns: dict[Column | Instant, pa.DataType] = {}
        self._once: list[str] = []

    @property
    def needed(self) -> list[Column | Instant]:
        """In the order of their numbers."""
        return list(self._columns)

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(str(number), kind) for number, kind in enumerate(self._columns.values())])

    def selected(self, rows: str) -> str:
        """What stands behind FROM for all expressions to be valid."""
        for number, expression in enumerate(self._once):
            rows = f"(SELECT *, {expression} AS _once_{number} FROM {rows})"
        return rows

    def once(self, expression: str) -> str:
        """A name for what an expression is, to be used more than once."""
        if expression not in self._once:
            self._once.append(expression)
        return f"_once_{self._once.index(expression)}"

    def fixed(self, column: Fixed) -> str:
        return self._name(column, pa.int64())

    def value(self, path: Path, use: Use) -> str:
        """The value at a path as TEXT, NUMBER, BOOL or JSON."""
        return _first([self._of_member(member, use) for member in _members(self._node, path)], _NULLS[use])

    def text_itself(self) -> str:
        """The payload where it is a text."""
        if not self._node.rest:
            return "NULL::VARCHAR"
        rest = self._rest(())
        return f"CASE WHEN starts_with({rest}, '\"') THEN ({rest})::JSON->>'$' END"

    def leaf_type(self, path: Path) -> LeafType | None:
        """Of a path that has a column and is nowhere else."""
        members = list(_members(self._node, path))
        return members[0].leaf if len(members) == 1 else None

    def instant(self, path: Path) -> str:
        """Times that are the texts of such a path, as far as they can be read quickly, in us since 1970."""
        return self._name(Instant(tuple(map(str, path))), pa.int64())

    def not_instant(self, path: Path) -> str:
        """The texts for which `instant` is null."""
        return self._name(Instant(tuple(map(str, path)), others=True), pa.string())

    def natural(self, path: Path, kind: str) -> str:
        """The value at a path as of a natural type."""
        if kind in ("JSON", "VARCHAR"):
            return self.value(path, Use.JSON if kind == "JSON" else Use.TEXT)
        found = []
        for member in _members(self._node, path):
            if member.leaf is not None and _TYPES[member.leaf] == kind:
                found.append(self._leaf(member))
            else:
                found.append(f"TRY_CAST({self._of_member(member, Use.TEXT)} AS {kind})")
        return _first(found, kind)

    def known_types(self, path: Path) -> set[str]:
        """Types of values at a path, as far as the columns say it."""
        members = list(_members(self._node, path))
        leaves = {_TYPES[member.leaf] for member in members if member.leaf is not None}
        return leaves | {"JSON" for member in members if member.child is not None}

    def type_in_rest(self, path: Path) -> str | None:
        """An expression for the type of a value that may be in a rest, null where there is no value; None where none
        is."""
        found = [member for member in _members(self._node, path) if member.leaf is None and member.child is None]
        values = [f"json_extract({self._rest(member.at)}, {quoted(written(member.path))})" for member in found]
        types = [_type_of(self.once(value)) for value in values]  # to look for it takes longer than all else
        return _first(types, "VARCHAR") if types else None

    # ---- values ----

    def _of_member(self, member: _Member, use: Use) -> str:
        if member.leaf is not None:
            return _converted(self._leaf(member), member.leaf, use)
        if member.child is not None:
            text = self._object(member.at, member.child)
            return f"({text})::JSON" if use is Use.JSON else text if use is Use.TEXT else f"NULL::{_NULLS[use]}"
        return as_sql(self._rest(member.at), member.path, use)

    def _object(self, at: tuple[str, ...], node: Node) -> str:
        """The text of an object, put together from its columns; null where it is not there."""
        if not at and not node.leaves and not node.children and node.rest:
            return f"COALESCE({self._rest(at)}, '{{}}')"
        members = [
            f"{quoted(_key(name))} || to_json({self._leaf(_Member((*at, name), leaf=kind))})"
            for name, kind in node.leaves.items()
        ]
        members += [
            f"{quoted(_key(name))} || {self._object((*at, name), child)}" for name, child in node.children.items()
        ]
        if node.rest:
            rest = self._rest(at)
            members.append(f"nullif(trim(substr({rest}, 2, length({rest}) - 2)), '')")
        whole = f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'" if members else "'{}'"
        if at:
            return f"CASE WHEN {self._name(Present(at), pa.bool_())} THEN {whole} END"
        if not node.rest:
            return whole
        return f"CASE WHEN starts_with({rest}, '{{') OR {rest} IS NULL THEN {whole} ELSE {rest} END"

    # ---- columns ----

    def _leaf(self, member: _Member) -> str:
        assert member.leaf is not None
        return self._name(Leaf(member.at), _ARROW[member.leaf])

    def _rest(self, at: tuple[str, ...]) -> str:
        return self._name(Rest(at), pa.string())

    def _name(self, column: Column | Instant, kind: pa.DataType) -> str:
        self._columns.setdefault(column, kind)
        return f'"{list(self._columns).index(column)}"'


_NULLS = {Use.NUMBER: "DOUBLE", Use.BOOL: "BOOLEAN", Use.TEXT: "VARCHAR", Use.JSON: "JSON"}


def _type_of(value: str) -> str:
    """The type that a column for a value of JSON would have."""
    return (
        f"CASE json_type({value}) WHEN 'UBIGINT' THEN CASE WHEN length({value}) >= {_LONG} THEN 'HUGEINT'"
        " ELSE 'BIGINT' END WHEN 'BIGINT' THEN 'BIGINT' WHEN 'DOUBLE' THEN 'DOUBLE' WHEN 'BOOLEAN' THEN 'BOOLEAN'"
        " WHEN 'OBJECT' THEN 'JSON' WHEN 'ARRAY' THEN 'JSON' WHEN 'VARCHAR' THEN 'VARCHAR' END"
    )


def _members(node: Node, path: Path) -> Iterator[_Member]:
    """Where the value at a path may be."""
    at: tuple[str, ...] = ()
    if not path:
        yield _Member((), child=node)
        return
    for number, step in enumerate(path):
        last = number == len(path) - 1
        name = step if isinstance(step, str) else None
        if name is not None and last and name in node.leaves:
            yield _Member((*at, name), leaf=node.leaves[name])
        if name is not None and name in node.children:
            if not last:
                if node.may_be_in_rest(name):  # a payload that was not divided
                    yield _Member(at, path=path[number:])
                node, at = node.children[name], (*at, name)
                continue
            yield _Member((*at, name), child=node.children[name])
        if node.may_be_in_rest(name):
            yield _Member(at, path=path[number:])
        return


def _converted(name: str, kind: LeafType, use: Use) -> str:
    if use is Use.JSON:
        return f"to_json({name})"
    if use is Use.TEXT:
        return name if kind is LeafType.TEXT else f"{name}::VARCHAR"
    if kind is LeafType.TEXT:
        return of_text(name, use)
    if use is Use.BOOL:
        return name if kind is LeafType.BOOL else "NULL::BOOLEAN"
    return "NULL::DOUBLE" if kind is LeafType.BOOL else f"{name}::DOUBLE"


def _first(values: list[str], kind: str) -> str:
    if not values:
        return f"NULL::{kind}"
    return values[0] if len(values) == 1 else f"COALESCE({', '.join(values)})"


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) + ":"
