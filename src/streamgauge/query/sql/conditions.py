"""What WHERE demands of a view's columns, as far as it can be told before the query runs."""

from __future__ import annotations

from collections.abc import Iterator

from streamgauge.query.sql import tree
from streamgauge.query.sql.relations import Condition, Scope, View
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
    path: str | None = None
    if column["type"] == "ARRAY_EXTRACT":
        column, key = column["children"]
        found_key = tree.literal(key)
        if found_key is None or found_key[0] != "STRING":
            return
        path = found_key[1]
    if column["class"] != "COLUMN_REF" or not all(map(_is_constant, values)):
        return
    found = scope.find(column["column_names"])
    if found is None or found[2] or found[0] not in scope.relations or not isinstance(found[0].table, View):
        return
    yield found[0].table, Condition(found[1], path, operator, tuple(values))


def _is_constant(node: Tree) -> bool:
    return all(each.get("class") not in _INCONSTANT for each in nodes(node))
