"""What WHERE demands of a view's columns, as far as it can be told before the query runs."""

from __future__ import annotations

from collections.abc import Iterator

from streamgauge.query.sql import tree
from streamgauge.query.sql.access import access_of
from streamgauge.query.sql.relations import Condition, Path, Relation, Scope, View
from streamgauge.query.sql.syntax import Tree, nodes

_OPERATORS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_TURNED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_INCONSTANT = frozenset({"COLUMN_REF", "SUBQUERY", "PARAMETER", "LAMBDA", "WINDOW", "STAR", "POSITIONAL_REFERENCE"})


def conditions(where: Tree, scope: Scope) -> Iterator[tuple[View, Condition]]:
    """Those that every row must fulfil, of views that are in the same FROM."""
    for conjunct in _conjuncts(where):
        if conjunct["class"] == "COMPARISON" and conjunct["type"] in _OPERATORS:
            operator = _OPERATORS[conjunct["type"]]
            left, right = conjunct["left"], conjunct["right"]
            yield from _condition(left, operator, [right], scope)
            yield from _condition(right, _TURNED[operator], [left], scope)
        elif conjunct["class"] == "BETWEEN":
            for operator, bound in ((">=", "lower"), ("<=", "upper")):
                yield from _condition(conjunct["input"], operator, [conjunct[bound]], scope)
        elif conjunct["type"] == "COMPARE_IN":
            first, *others = conjunct["children"]
            yield from _condition(first, "in", others, scope)


def _conjuncts(node: Tree) -> Iterator[Tree]:
    if node["type"] == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from _conjuncts(child)
    else:
        yield node


def _condition(column: Tree, operator: str, values: list[Tree], scope: Scope) -> Iterator[tuple[View, Condition]]:
    if not all(map(_is_constant, values)) or (found := _found(column, scope)) is None:
        return
    relation, name, path = found
    if relation in scope.relations and relation not in scope.whole and isinstance(relation.table, View):
        yield relation.table, Condition(name, path, operator, tuple(values))


def _found(column: Tree, scope: Scope) -> tuple[Relation, str, Path] | None:
    """A column, or a path into one: of JSON, or with one step into a map, as in labels['job']."""
    access = access_of(column, scope)
    if access is not None:
        return access.relation, access.column, access.path
    path: Path = ()
    if column["type"] == "ARRAY_EXTRACT":
        column, key = column["children"]
        literal = tree.literal(key)
        if literal is None or literal[0] != "STRING":
            return None
        path = (literal[1],)
    if column["class"] != "COLUMN_REF":
        return None
    found = scope.find(column["column_names"])
    return None if found is None or found[2] else (found[0], found[1], path)


def _is_constant(node: Tree) -> bool:
    return all(each.get("class") not in _INCONSTANT for each in nodes(node))
