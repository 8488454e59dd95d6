"""What a query asks of which view: names are looked up as DuckDB will, and paths into payloads become columns.

The tree is changed on the way: tables become views of the query's own, paths columns of these, parameters constants.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamgauge.errors import BadInput
from streamgauge.query.sql import tree
from streamgauge.query.sql.conditions import conditions
from streamgauge.query.sql.json_path import key_path
from streamgauge.query.sql.json_values import value_of
from streamgauge.query.sql.relations import Derived, Origin, Path, Relation, Scope, Use, View
from streamgauge.query.sql.schema import SCHEMA
from streamgauge.query.sql.syntax import ARROW, Tree, nodes
from streamgauge.query.sql.uses import among, beside, in_function

Known = Mapping[str, Derived]
"""Common table expressions by name, in lower case."""

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_EXTRACTS = {
    ARROW: Use.JSON,
    "json_extract": Use.JSON,
    "json_extract_path": Use.JSON,
    "->>": Use.TEXT,
    "json_extract_string": Use.TEXT,
    "json_extract_path_text": Use.TEXT,
}
_FLIPPED = {"left": "right", "right": "left"}


@dataclass(frozen=True, slots=True)
class _Access:
    """A path into a column of JSON."""

    relation: Relation
    column: str
    path: Path
    use: Use  # as what it is wanted by the way it is written: x.a.b is NATURAL, x->'a' JSON, x->>'a' TEXT


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
        self._stars: list[tuple[Tree, list[Relation]]] = []
        self._changes = 0

    def resolve(self, statement: Tree) -> None:
        """Raises BadInput."""
        self._query(statement["node"], {}, None)
        for star, relations in self._stars:
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
            self._inside(modifier, known, scope)
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
        self._boolean(node["where_clause"], known, flat)
        for expression in node["group_expressions"]:
            self._expression(expression, known, scope)
        for name in ("having", "qualify"):
            self._boolean(node[name], known, scope)
        for modifier in node["modifiers"]:
            self._inside(modifier, known, scope)
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
            access = self._access(item, scope)
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
                    self._inside(value, known, source)
            scope.relations.append(Relation(node["alias"], Derived({}, complete=False)))
        else:
            self._inside(list(node.values()), known, scope)
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
        self._from(node["right"], known, scope)
        for relation in scope.relations[before:]:
            if node["ref_type"] == "NATURAL":
                relation.table.need(None)
            for column in node["using_columns"]:
                if relation.table.has(str(column).lower()):
                    relation.table.need(str(column).lower())
        self._boolean(node["condition"], known, scope)
        self._inside(node["ranking_expression"], known, scope)

    def _table_function(self, node: Tree, known: Known, scope: Scope) -> None:
        function = node["function"]
        if str(function["function_name"]).lower() != "promql":
            self._expression(function, known, scope)
            columns: dict[str, Origin | None] = {str(each).lower(): None for each in node["column_name_alias"]}
            scope.relations.append(Relation(node["alias"], Derived(columns, complete=False)))
            return
        arguments = tuple(tree.arguments(function))
        for argument in arguments:
            self._expression(argument, known, Scope([]))
        call = TableCall(f"{self._prefix}_promql_{len(self.calls)}", arguments)
        self.calls.append(call)
        alias, aliases = node["alias"] or "promql", node["column_name_alias"]
        node.clear()
        node.update(tree.table(call.name, alias, aliases))
        named: dict[str, Origin | None] = dict.fromkeys(("labels", "time", "value"))
        scope.relations.append(Relation(alias, _renamed(Derived(named), aliases)))

    # ---- expressions ----

    def _named(self, item: Tree, known: Known, scope: Scope) -> None:
        """An expression of a select list. It keeps the name that it would have, though it is rewritten."""
        if item["class"] == "STAR":
            self._star(item, known, scope)
            return
        name = str(item["column_names"][-1]) if item["class"] == "COLUMN_REF" else self._source(item)
        before = self._changes
        self._expression(item, known, scope)
        if self._changes != before and not item["alias"]:
            item["alias"] = name

    def _source(self, item: Tree) -> str:
        """An expression as it was written."""
        places = [(each["query_location"], each["query_location_length"]) for each in nodes(item) if "class" in each]
        known = [(begin, begin + length) for begin, length in places if begin < len(self._text)]
        if not known:
            return ""
        return self._text[min(begin for begin, _ in known) : max(end for _, end in known)].decode(errors="replace")

    def _star(self, node: Tree, known: Known, scope: Scope) -> None:
        whose = str(node["relation_name"]).lower()
        relations = [each for each in scope.relations if not whose or each.alias.lower() == whose]
        for relation in relations:
            relation.table.need(None)
        if not (node["columns"] or node["expr"]):
            self._stars.append((node, relations))
        self._inside(node["replace_list"], known, scope)
        self._inside(node["expr"], known, scope)

    def _boolean(self, node: Tree | None, known: Known, scope: Scope) -> None:
        if node is not None:
            self._expression(node, known, scope, Use.BOOL)

    def _expression(self, node: Tree, known: Known, scope: Scope, use: Use = Use.NATURAL) -> None:
        access = self._access(node, scope)
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
            "STAR": self._star,
            "COLUMN_REF": self._column,
        }.get(node["class"], self._children)
        handle(node, known, scope)

    def _comparison(self, node: Tree, known: Known, scope: Scope) -> None:
        for side, other in _FLIPPED.items():
            self._expression(node[side], known, scope, beside(node[other]) or Use.NATURAL)

    def _between(self, node: Tree, known: Known, scope: Scope) -> None:
        use = among([node["lower"], node["upper"]])
        self._expression(node["input"], known, scope, use or Use.NATURAL)
        for bound in ("lower", "upper"):
            self._expression(node[bound], known, scope, beside(node["input"]) or Use.NATURAL)

    def _operator(self, node: Tree, known: Known, scope: Scope) -> None:
        children: list[Tree] = node["children"]
        use = Use.NATURAL
        if node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN"):
            first, *others = children
            found = among(others)
            if found is Use.TEXT:
                _make_texts(others)
            self._expression(first, known, scope, found or Use.NATURAL)
            children = others
        elif node["type"] in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            use = Use.TEXT
        elif node["type"] == "OPERATOR_NOT":
            use = Use.BOOL
        elif node["type"] == "OPERATOR_COALESCE":
            found = among([child for child in children if tree.literal(child)])
            use = Use.NUMERIC if found is Use.NUMBER else found or Use.NATURAL
        for child in children:
            self._expression(child, known, scope, use)

    def _conjunction(self, node: Tree, known: Known, scope: Scope) -> None:
        for child in node["children"]:
            self._expression(child, known, scope, Use.BOOL)

    def _case(self, node: Tree, known: Known, scope: Scope) -> None:
        for check in node["case_checks"]:
            self._expression(check["when_expr"], known, scope, Use.BOOL)
            self._expression(check["then_expr"], known, scope)
        self._expression(node["else_expr"], known, scope)

    def _cast(self, node: Tree, known: Known, scope: Scope) -> None:
        json = str(node["type_expr"]["type_name"]).upper() == "JSON"
        self._expression(node["child"], known, scope, Use.JSON if json else Use.NATURAL)

    def _function(self, node: Tree, known: Known, scope: Scope) -> None:
        use = in_function(str(node["function_name"]).lower())
        for argument in tree.arguments(node):
            self._expression(argument, known, scope, use)
        for name in ("filter", "filter_expr"):
            self._boolean(node.get(name), known, scope)
        self._inside([value for key, value in node.items() if key not in _OF_FUNCTIONS], known, scope)

    def _subquery(self, node: Tree, known: Known, scope: Scope) -> None:
        self._query(node["subquery"]["node"], known, scope)
        if node.get("child") is not None:
            self._expression(node["child"], known, scope)

    def _lambda(self, node: Tree, known: Known, scope: Scope) -> None:
        names = {name.lower() for each in _columns_in(node["lhs"]) for name in each["column_names"]}
        self._expression(node["expr"], known, replace(scope, shadowed=scope.shadowed | names))

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
        self._inside(list(node.values()), known, scope)

    def _inside(self, part: Any, known: Known, scope: Scope) -> None:
        """Whatever expressions and queries there are in something else."""
        if isinstance(part, list):
            for each in part:
                self._inside(each, known, scope)
        elif isinstance(part, dict) and "class" in part:
            self._expression(part, known, scope)
        elif isinstance(part, dict) and part.get("type") in _QUERIES:
            self._query(part, known, scope)
        elif isinstance(part, dict):
            self._inside(list(part.values()), known, scope)

    # ---- paths ----

    def _access(self, node: Tree, scope: Scope) -> _Access | None:
        """A path into a column of JSON, however it is written."""
        if node["class"] == "COLUMN_REF":
            found = scope.find(node["column_names"])
            if found is None or found[0].table.origin(found[1]) is None:
                return None
            relation, column, path = found
            return _Access(relation, column, tuple(path), Use.NATURAL)
        if node["class"] == "FUNCTION" and str(node["function_name"]).lower() in _EXTRACTS:
            arguments = tree.arguments(node)
            use = _EXTRACTS[str(node["function_name"]).lower()]
        elif node["type"] == "ARRAY_EXTRACT":
            arguments, use = node["children"], Use.NATURAL
        else:
            return None
        if len(arguments) != 2:
            return None
        inner = self._access(arguments[0], scope)
        step = key_path(arguments[1], members_only=node["type"] == "ARRAY_EXTRACT")
        if inner is None or inner.use is Use.TEXT or step is None:
            return None
        return replace(inner, path=(*inner.path, *step), use=use)

    def _put(self, node: Tree, access: _Access, scope: Scope, wanted: Use) -> None:
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
        self._changes += 1
        if scope.grouped and use in (Use.TEXT, Use.NUMBER, Use.BOOL):
            base = self._exposed(access, scope, Use.NATURAL)
            if base is not None:
                tree.replace(node, _cast_to(use, base))
                return
        exposed = self._exposed(access, scope, use)
        if exposed is None:
            access.relation.table.need(access.column)
        tree.replace(node, exposed or value_of(access.relation.reference(access.column), access.path, use))

    def _exposed(self, access: _Access, scope: Scope, use: Use) -> Tree | None:
        if scope.closed:
            return None
        name = access.relation.table.expose(access.column, access.path, use)
        return None if name is None else access.relation.reference(name)


_COMPARED = frozenset({Use.NUMBER, Use.BOOL})
_STRICT = frozenset({Use.TEXT, Use.NUMBER, Use.BOOL})
_OF_FUNCTIONS = frozenset({"arguments", "filter", "filter_expr", "qualified_name"})


def _cast_to(use: Use, node: Tree) -> Tree:
    """A value of its natural type, of which several uses are made in one expression over groups."""
    kind = {Use.NUMBER: "DOUBLE", Use.BOOL: "BOOLEAN"}.get(use, "VARCHAR")
    return tree.cast(node, kind, attempt=True)


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


def _make_texts(nodes: Sequence[Tree]) -> None:
    for node in nodes:
        found = tree.literal(node)
        if found is not None and found[0] != "NULL_LITERAL":
            tree.replace(node, tree.constant(found[1]))


def _columns_in(part: Any) -> Iterator[Tree]:
    return (each for each in nodes(part) if each.get("class") == "COLUMN_REF")
