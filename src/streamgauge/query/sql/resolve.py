"""What a query asks of which view: names are looked up as DuckDB will, and paths into payloads become columns.

The tree is changed on the way: tables become views of the query's own, paths columns of these, parameters constants.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streamgauge.errors import BadInput
from streamgauge.query.sql import tree
from streamgauge.query.sql.access import access_of
from streamgauge.query.sql.conditions import conditions
from streamgauge.query.sql.expressions import Expressions
from streamgauge.query.sql.relations import Derived, Known, Origin, Relation, Scope, Use, View
from streamgauge.query.sql.schema import SCHEMA
from streamgauge.query.sql.syntax import Tree, nodes


@dataclass(frozen=True, slots=True)
class TableCall:
    """A call of promql(…), made a table of this name."""

    name: str
    arguments: tuple[Tree, ...]


class Resolver:
    def __init__(self, text: bytes, prefix: str = "") -> None:
        """
        text: the query's, into which the tree's locations point.
        prefix: of the names that views and tables get.
        """
        self.views: list[View] = []
        self.calls: list[TableCall] = []
        self._text = text
        self._prefix = prefix
        self._hidden = itertools.count()
        self._expressions = Expressions(self._query)

    def resolve(self, statement: Tree) -> None:
        """Raises BadInput."""
        self._query(statement["node"], {}, None)
        for star, relations in self._expressions.stars:
            star["exclude_list"] += [name for each in relations for name in each.table.hidden]

    # ---- queries ----

    def _query(self, node: Tree, known: Known, outer: Scope | None) -> Derived:
        """The answer that a query node gives."""
        for pair in node["cte_map"]["map"]:
            known = {**known, pair["key"].lower(): self._common(pair["key"].lower(), pair["value"], known, outer)}
        if node["type"] == "SELECT_NODE":
            return self._select(node, known, outer)
        if node["type"] == "RECURSIVE_CTE_NODE":
            name = str(node["cte_name"]).lower()
            self._query(node["left"], known, outer)
            self._query(node["right"], {**known, name: Derived({}, complete=False)}, outer)
            return Derived({}, complete=False)
        answers = [self._query(child, known, outer) for child in _branches(node)]
        answer = _united(answers)
        scope = Scope([Relation("", _closed(answer))], outer)
        for modifier in node["modifiers"]:
            self._expressions.inside(modifier, known, scope)
        return answer

    def _common(self, name: str, value: Tree, known: Known, outer: Scope | None) -> Derived:
        return _renamed(self._query(value["query_node"], known, outer), value["aliases"])

    def _select(self, node: Tree, known: Known, outer: Scope | None) -> Derived:
        scope = Scope([], outer)
        self._from(node["from_table"], known, scope)
        items: list[Tree] = node["select_list"]
        scope.closed = any(item["class"] == "STAR" and (item["columns"] or item["expr"]) for item in items)
        scope.grouped = bool(node["group_expressions"]) or node["aggregate_handling"] != "STANDARD_HANDLING"
        if node["where_clause"] is not None:
            for view, condition in conditions(node["where_clause"], scope):
                view.conditions.append(condition)
        scope.aliases = frozenset(item["alias"].lower() for item in items if item["alias"])
        columns, complete = self._columns(items, scope)
        own = len(items)
        for item in items[:own]:
            self._named(item, known, scope)
        flat = replace(scope, grouped=False)
        self._expressions.boolean(node["where_clause"], known, flat)
        for expression in node["group_expressions"]:
            self._expressions.rewrite(expression, known, scope)
        for name in ("having", "qualify"):
            self._expressions.boolean(node[name], known, scope)
        for modifier in node["modifiers"]:
            self._expressions.inside(modifier, known, scope)
        distinct = any(modifier["type"] == "DISTINCT_MODIFIER" for modifier in node["modifiers"])
        open_ended = not (scope.grouped or distinct or scope.closed)
        return Derived(columns, complete, node if open_ended else None)

    def _columns(self, items: Sequence[Tree], scope: Scope) -> tuple[dict[str, Origin | None], bool]:
        """What the answer's columns are called and come from, and whether these are all."""
        columns: dict[str, Origin | None] = {}
        complete = True
        for item in items:
            if item["class"] == "STAR":
                whose = str(item["relation_name"]).lower()
                excluded = {str(name).lower() for name in item["exclude_list"]}
                changed = {str(entry["key"]).lower() for entry in item["replace_list"] if isinstance(entry, dict)}
                complete &= not (item["columns"] or item["rename_list"])
                for relation in scope.relations:
                    if whose and relation.alias.lower() != whose:
                        continue
                    complete &= relation.table.has("") is not None
                    for name in relation.table.names():
                        if name not in excluded:
                            columns.setdefault(name, None if name in changed else Origin(relation, name, ()))
                continue
            access = access_of(item, scope)
            origin = (
                Origin(access.relation, access.column, access.path) if access and access.use is not Use.TEXT else None
            )
            called = item["alias"] or (item["column_names"][-1] if item["class"] == "COLUMN_REF" else "")
            complete &= bool(called)
            if called:
                columns[called.lower()] = origin
        return columns, complete

    # ---- tables ----

    def _from(self, node: Tree, known: Known, scope: Scope) -> None:
        """Add the relations of a FROM to the scope."""
        kind = node["type"]
        if kind == "BASE_TABLE":
            scope.relations.append(self._table(node, known))
        elif kind == "SUBQUERY":
            answer = self._query(node["subquery"]["node"], known, scope)
            scope.relations.append(Relation(node["alias"], _renamed(answer, node["column_name_alias"])))
        elif kind == "JOIN":
            self._join(node, known, scope)
        elif kind == "TABLE_FUNCTION":
            self._table_function(node, known, scope)
        elif kind == "SHOW_REF":
            self._query(node["query"], known, None)
            scope.relations.append(Relation(node["alias"], Derived({}, complete=False)))
        elif kind == "PIVOT":
            source = Scope([], scope.outer, closed=True)
            self._from(node["source"], known, source)
            for relation in source.relations:
                relation.table.need(None)
            for name, value in node.items():
                if name != "source":
                    self._expressions.inside(value, known, source)
            scope.relations.append(Relation(node["alias"], Derived({}, complete=False)))
        else:
            self._expressions.inside(list(node.values()), known, scope)
            if kind != "EMPTY":
                scope.relations.append(Relation(node["alias"], Derived({}, complete=False)))

    def _table(self, node: Tree, known: Known) -> Relation:
        name = str(node["table_name"]).lower()
        qualified = node["schema_name"] or node["catalog_name"]
        if name in known and not qualified:
            alias = node["alias"] or node["table_name"]
            return Relation(alias, _renamed(known[name], node["column_name_alias"]))
        if name not in SCHEMA or qualified:
            raise BadInput(f"there is no table {node['table_name']}; the views are {', '.join(SCHEMA)}")
        if node["at_clause"] is not None:
            raise BadInput("AT is not answered here: a query sees what is stored when it begins")
        view = View(name, f"{self._prefix}_view_{len(self.views)}", SCHEMA[name], self._hidden)
        self.views.append(view)
        alias = node["alias"] or node["table_name"]
        node["alias"], node["table_name"], node["qualified_name"] = alias, view.name, {"path": [view.name]}
        if not node["column_name_alias"]:
            return Relation(alias, view)
        view.need(None)
        columns: dict[str, Origin | None] = dict.fromkeys(view.columns)
        return Relation(alias, _renamed(Derived(columns), node["column_name_alias"]))

    def _join(self, node: Tree, known: Known, scope: Scope) -> None:
        before = len(scope.relations)
        self._from(node["left"], known, scope)
        right = len(scope.relations)
        self._from(node["right"], known, scope)
        if node["ref_type"] in ("ASOF", "POSITIONAL"):  # which row is beside another depends on what others there are
            scope.whole += scope.relations[right if node["ref_type"] == "ASOF" else before :]
        for relation in scope.relations[before:]:
            if node["ref_type"] == "NATURAL":
                relation.table.need(None)
            for column in node["using_columns"]:
                if relation.table.has(str(column).lower()):
                    relation.table.need(str(column).lower())
        self._expressions.boolean(node["condition"], known, scope)
        self._expressions.inside(node["ranking_expression"], known, scope)

    def _table_function(self, node: Tree, known: Known, scope: Scope) -> None:
        function = node["function"]
        if str(function["function_name"]).lower() != "promql":
            self._expressions.rewrite(function, known, scope)
            columns: dict[str, Origin | None] = {str(each).lower(): None for each in node["column_name_alias"]}
            scope.relations.append(Relation(node["alias"], Derived(columns, complete=False)))
            return
        arguments = tuple(tree.arguments(function))
        for argument in arguments:
            self._expressions.rewrite(argument, known, Scope([]))
        call = TableCall(f"{self._prefix}_promql_{len(self.calls)}", arguments)
        self.calls.append(call)
        alias, aliases = node["alias"] or "promql", node["column_name_alias"]
        node.clear()
        node.update(tree.table(call.name, alias, aliases))
        named: dict[str, Origin | None] = dict.fromkeys(("labels", "time", "value"))
        scope.relations.append(Relation(alias, _renamed(Derived(named), aliases)))

    # ---- select lists ----

    def _named(self, item: Tree, known: Known, scope: Scope) -> None:
        """An expression of a select list. It keeps the name that it would have, though it is rewritten."""
        if item["class"] == "STAR":
            self._expressions.star(item, known, scope)
            return
        name = str(item["column_names"][-1]) if item["class"] == "COLUMN_REF" else self._source(item)
        before = self._expressions.changes
        self._expressions.rewrite(item, known, scope)
        if self._expressions.changes != before and not item["alias"]:
            item["alias"] = name

    def _source(self, item: Tree) -> str:
        """An expression as it was written."""
        places = [(each["query_location"], each["query_location_length"]) for each in nodes(item) if "class" in each]
        known = [(begin, begin + length) for begin, length in places if begin < len(self._text)]
        if not known:
            return ""
        return self._text[min(begin for begin, _ in known) : max(end for _, end in known)].decode(errors="replace")


def _closed(answer: Derived) -> Derived:
    """The same columns, to which none can be added."""
    return Derived(answer.columns, answer.complete)


def _branches(node: Tree) -> Iterator[Tree]:
    for value in (node.get("left"), node.get("right"), node.get("query"), node.get("child"), *node.get("children", ())):
        if isinstance(value, dict):
            yield value


def _united(answers: Sequence[Derived]) -> Derived:
    """Of a UNION or the like: the names are those of the first."""
    first = answers[0]
    return Derived(dict.fromkeys(first.columns), first.complete)


def _renamed(answer: Derived, names: Sequence[str]) -> Derived:
    """With other names for the first columns."""
    if not names:
        return answer
    old = list(answer.columns.items())
    columns = {str(name).lower(): origin for name, (_, origin) in zip(names, old, strict=False)}
    if answer.complete:
        columns |= dict(old[len(names) :])
    return Derived({**dict.fromkeys(str(name).lower() for name in names), **columns}, answer.complete)
