"""Expressions of a query, in which paths into payloads become columns of the views that they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from streamgauge.query.sql import tree
from streamgauge.query.sql.access import Access, access_of
from streamgauge.query.sql.json_values import value_of
from streamgauge.query.sql.relations import Known, Relation, Scope, Use
from streamgauge.query.sql.syntax import Tree, nodes
from streamgauge.query.sql.uses import among, beside, in_function

QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})

_FLIPPED = {"left": "right", "right": "left"}
_COMPARED = frozenset({Use.NUMBER, Use.BOOL})
_STRICT = frozenset({Use.TEXT, Use.NUMBER, Use.BOOL})
_OF_FUNCTIONS = frozenset({"arguments", "filter", "filter_expr", "qualified_name"})


class Expressions:
    """query: what looks at a query inside of an expression."""

    def __init__(self, query: Callable[[Tree, Known, Scope], object]) -> None:
        self.stars: list[tuple[Tree, list[Relation]]] = []  # and what they are of
        self.changes = 0
        self._query = query

    def star(self, node: Tree, known: Known, scope: Scope) -> None:
        whose = str(node["relation_name"]).lower()
        relations = [each for each in scope.relations if not whose or each.alias.lower() == whose]
        for relation in relations:
            relation.table.need(None)
        if not (node["columns"] or node["expr"]):
            self.stars.append((node, relations))
        self.inside(node["replace_list"], known, scope)
        self.inside(node["expr"], known, scope)

    def boolean(self, node: Tree | None, known: Known, scope: Scope) -> None:
        if node is not None:
            self.rewrite(node, known, scope, Use.BOOL)

    def rewrite(self, node: Tree, known: Known, scope: Scope, use: Use = Use.NATURAL) -> None:
        access = access_of(node, scope)
        if access is not None:
            self._put(node, access, scope, use)
            return
        handle: Callable[[Tree, Known, Scope], None] = {
            "COMPARISON": self._comparison,
            "BETWEEN": self._between,
            "OPERATOR": self._operator,
            "CONJUNCTION": self._conjunction,
            "CASE": self._case,
            "CAST": self._cast,
            "FUNCTION": self._function,
            "WINDOW": self._function,
            "SUBQUERY": self._subquery,
            "LAMBDA": self._lambda,
            "STAR": self.star,
            "COLUMN_REF": self._column,
        }.get(node["class"], self._children)
        handle(node, known, scope)

    def _comparison(self, node: Tree, known: Known, scope: Scope) -> None:
        for side, other in _FLIPPED.items():
            self.rewrite(node[side], known, scope, beside(node[other]) or Use.NATURAL)

    def _between(self, node: Tree, known: Known, scope: Scope) -> None:
        use = among([node["lower"], node["upper"]])
        self.rewrite(node["input"], known, scope, use or Use.NATURAL)
        for bound in ("lower", "upper"):
            self.rewrite(node[bound], known, scope, beside(node["input"]) or Use.NATURAL)

    def _operator(self, node: Tree, known: Known, scope: Scope) -> None:
        children: list[Tree] = node["children"]
        use = Use.NATURAL
        if node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN"):
            first, *others = children
            found = among(others)
            if found is Use.TEXT:
                _make_texts(others)
            self.rewrite(first, known, scope, found or Use.NATURAL)
            children = others
        elif node["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            use = Use.TEXT
        elif node["type"] == "OPERATOR_NOT":
            use = Use.BOOL
        elif node["type"] == "OPERATOR_COALESCE":
            found = among([child for child in children if tree.literal(child)])
            use = Use.NUMERIC if found is Use.NUMBER else found or Use.NATURAL
        for child in children:
            self.rewrite(child, known, scope, use)

    def _conjunction(self, node: Tree, known: Known, scope: Scope) -> None:
        for child in node["children"]:
            self.rewrite(child, known, scope, Use.BOOL)

    def _case(self, node: Tree, known: Known, scope: Scope) -> None:
        for check in node["case_checks"]:
            self.rewrite(check["when_expr"], known, scope, Use.BOOL)
            self.rewrite(check["then_expr"], known, scope)
        self.rewrite(node["else_expr"], known, scope)

    def _cast(self, node: Tree, known: Known, scope: Scope) -> None:
        json = str(node["type_expr"]["type_name"]).upper() == "JSON"
        self.rewrite(node["child"], known, scope, Use.JSON if json else Use.NATURAL)

    def _function(self, node: Tree, known: Known, scope: Scope) -> None:
        use = in_function(str(node["function_name"]).lower())
        for argument in tree.arguments(node):
            self.rewrite(argument, known, scope, use)
        for name in ("filter", "filter_expr"):
            self.boolean(node.get(name), known, scope)
        self.inside([value for key, value in node.items() if key not in _OF_FUNCTIONS], known, scope)

    def _subquery(self, node: Tree, known: Known, scope: Scope) -> None:
        self._query(node["subquery"]["node"], known, scope)
        if node.get("child") is not None:
            self.rewrite(node["child"], known, scope)

    def _lambda(self, node: Tree, known: Known, scope: Scope) -> None:
        names = {name.lower() for each in _columns_in(node["lhs"]) for name in each["column_names"]}
        self.rewrite(node["expr"], known, replace(scope, shadowed=scope.shadowed | names))

    def _column(self, node: Tree, known: Known, scope: Scope) -> None:
        found = scope.find(node["column_names"])
        if found is not None:
            found[0].table.need(found[1])
            return
        for relation in scope.relations:
            if [relation.alias.lower()] == [name.lower() for name in node["column_names"]]:
                relation.table.need(None)  # the row as a whole
        if len(node["column_names"]) == 1 and str(node["column_names"][0]).lower() not in scope.aliases:
            for relation in scope.relations:
                relation.table.need(None)  # it is not there, and the error shall say what is

    def _children(self, node: Tree, known: Known, scope: Scope) -> None:
        self.inside(list(node.values()), known, scope)

    def inside(self, part: Any, known: Known, scope: Scope) -> None:
        """Whatever expressions and queries there are in something else."""
        if isinstance(part, list):
            for each in part:
                self.inside(each, known, scope)
        elif isinstance(part, dict) and "class" in part:
            self.rewrite(part, known, scope)
        elif isinstance(part, dict) and part.get("type") in QUERIES:
            self._query(part, known, scope)
        elif isinstance(part, dict):
            self.inside(list(part.values()), known, scope)

    def _put(self, node: Tree, access: Access, scope: Scope, wanted: Use) -> None:
        """Write a path as the column that answers it, as what it is wanted."""
        use = wanted if wanted in _STRICT else access.use
        if access.use is Use.NATURAL and wanted in (Use.JSON, Use.NUMERIC):
            use = wanted
        if access.use in (Use.TEXT, Use.JSON) and wanted is Use.NUMERIC:
            use = wanted
        whole = not access.path and access.relation.table.origin(access.column) == ()
        if (whole and wanted not in _COMPARED) or (not access.path and use in (Use.NATURAL, Use.JSON)):
            access.relation.table.need(access.column)
            return
        self.changes += 1
        if scope.grouped and use in (Use.TEXT, Use.NUMBER, Use.BOOL):
            base = self._exposed(access, scope, Use.NATURAL)
            if base is not None:
                tree.replace(node, _cast_to(use, base))
                return
        exposed = self._exposed(access, scope, use)
        if exposed is None:
            access.relation.table.need(access.column)
        tree.replace(node, exposed or value_of(access.relation.reference(access.column), access.path, use))

    def _exposed(self, access: Access, scope: Scope, use: Use) -> Tree | None:
        if scope.closed:
            return None
        name = access.relation.table.expose(access.column, access.path, use)
        return None if name is None else access.relation.reference(name)


def _cast_to(use: Use, node: Tree) -> Tree:
    """A value of its natural type, of which several uses are made in one expression over groups."""
    kind = {Use.NUMBER: "DOUBLE", Use.BOOL: "BOOLEAN"}.get(use, "VARCHAR")
    return tree.cast(node, kind, attempt=True)


def _make_texts(nodes: Sequence[Tree]) -> None:
    for node in nodes:
        found = tree.literal(node)
        if found is not None and found[0] != "NULL_LITERAL":
            tree.replace(node, tree.constant(found[1]))


def _columns_in(part: Any) -> Iterator[Tree]:
    return (each for each in nodes(part) if each.get("class") == "COLUMN_REF")
