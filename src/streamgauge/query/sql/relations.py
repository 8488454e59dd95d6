"""What stands behind FROM: our views, subqueries, and what is in their columns.

A path into a payload is answered by a column of its own, which the view that it comes from is given for it: only what
is asked for is read then, and values of whatever type are compared without a cast. Where a subquery hands a payload on,
it hands such columns on, too. They are hidden: `SELECT *` leaves them out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from streamgauge.query.sql import tree
from streamgauge.query.sql.syntax import Tree

Path = tuple[str | int, ...]
"""Names of members and indexes into arrays, from a JSON value down."""


class Use(enum.Enum):
    """As what the value at a path is wanted."""

    NATURAL = "natural"  # of the one type that all values at the path have; of several, text
    TEXT = "text"  # a string as it is, everything else as JSON
    NUMBER = "number"  # a double; null for what is none
    NUMERIC = "numeric"  # the natural type where that is one of numbers, else as NUMBER
    BOOL = "bool"
    JSON = "json"


class Table(Protocol):
    """What a relation is of. Names of columns are in lower case."""

    hidden: list[str]

    def has(self, column: str) -> bool | None:
        """None when that is not known."""

    def origin(self, column: str) -> Path | None:
        """For a column of JSON the path of it in whatever it comes from, () for one that comes as it is. None for
        columns of other types."""

    def expose(self, column: str, path: Path, use: Use) -> str | None:
        """The name of a hidden column with the value at a path of a column of JSON. None when it cannot be had."""

    def need(self, column: str | None) -> None:
        """A column is read; None stands for all."""

    def names(self) -> Iterator[str]:
        """Of the columns that are known and not hidden."""


@dataclass(eq=False)
class View:
    """One mention of one of our views. `columns`: their names in order, and whether they are JSON."""

    kind: str
    name: str  # by which it is made in the database
    columns: Mapping[str, bool]
    counter: Iterator[int]  # numbers hidden columns
    needed: set[str] = field(default_factory=set)
    paths: dict[tuple[str, Path, Use], str] = field(default_factory=dict)
    conditions: list[Condition] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def has(self, column: str) -> bool | None:
        return column in self.columns

    def origin(self, column: str) -> Path | None:
        return () if self.columns.get(column) else None

    def expose(self, column: str, path: Path, use: Use) -> str | None:
        key = (column, path, use)
        if key not in self.paths:
            self.paths[key] = f"_path_{next(self.counter)}"
            self.hidden.append(self.paths[key])
        return self.paths[key]

    def need(self, column: str | None) -> None:
        self.needed |= self.columns.keys() if column is None else {column}

    def names(self) -> Iterator[str]:
        yield from self.columns


@dataclass(frozen=True, slots=True)
class Condition:
    """What WHERE demands of a column of a view: `operator` is <, <=, >, >=, = or in. The values have no columns."""

    column: str
    path: Path  # of labels['job'] it is ("job",), of the column itself ()
    operator: str
    values: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a column of a subquery's answer comes from: the value at a path of a column of one of its relations."""

    relation: Relation
    column: str
    path: Path


@dataclass(eq=False)
class Derived:
    """The answer of a subquery or a common table expression.

    node: the SELECT that columns can be added to; None when they cannot. complete: whether `columns` are all of them.
    """

    columns: dict[str, Origin | None]
    complete: bool = True
    node: Tree | None = None
    hidden: list[str] = field(default_factory=list)

    def has(self, column: str) -> bool | None:
        return True if column in self.columns else (False if self.complete else None)

    def origin(self, column: str) -> Path | None:
        origin = self.columns.get(column)
        if origin is None:
            return None
        inner = origin.relation.table.origin(origin.column)
        return None if inner is None else (*inner, *origin.path)

    def expose(self, column: str, path: Path, use: Use) -> str | None:
        origin = self.columns.get(column)
        if origin is None or self.node is None:
            return None
        name = origin.relation.table.expose(origin.column, (*origin.path, *path), use)
        if name is not None and name not in self.hidden:
            self.hidden.append(name)
            passed = origin.relation.reference(name)
            passed["alias"] = name
            self.node["select_list"].append(passed)
        return name

    def need(self, column: str | None) -> None:
        pass  # it was read where the subquery was looked at

    def names(self) -> Iterator[str]:
        yield from self.columns


Known = Mapping[str, Derived]
"""Common table expressions by name, in lower case."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table by the name that a query calls it."""

    alias: str  # "" where there is none
    table: Table

    def reference(self, column: str) -> Tree:
        return tree.column(self.alias, column) if self.alias else tree.column(column)


@dataclass(slots=True)
class Scope:
    """Where names are looked up: the relations of one SELECT, then those around it."""

    relations: list[Relation]
    outer: Scope | None = None
    shadowed: frozenset[str] = frozenset()  # parameters of lambdas
    aliases: frozenset[str] = frozenset()  # of the select list
    closed: bool = False  # nothing may be hidden here: COLUMNS(…) would find it
    grouped: bool = False  # expressions are over groups
    whole: list[Relation] = field(default_factory=list)  # of which a join wants all rows, whatever WHERE says

    def find(self, names: list[str]) -> tuple[Relation, str, list[str]] | None:
        """Relation, column and what is left of a dotted name. None for what is none of ours or cannot be told."""
        first = names[0].lower()
        if first in self.shadowed:
            return None
        for relation in self.relations:
            if len(names) > 1 and relation.alias.lower() == first and relation.table.has(names[1].lower()):
                return relation, names[1].lower(), names[2:]
        for relation in self.relations:
            if relation.table.has(first):
                return relation, first, names[1:]
        if any(relation.table.has(first) is None for relation in self.relations):
            return None
        return self.outer.find(names) if self.outer is not None else None
