"""Pieces of syntax trees, made by hand."""

from __future__ import annotations

from typing import Any

from streamgauge.query.requests import SqlValue
from streamgauge.query.sql.syntax import Tree

_PLACE = {"alias": "", "query_location": (1 << 64) - 1, "query_location_length": 0}


def column(*names: str) -> Tree:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", **_PLACE, "column_names": list(names)}


def constant(value: SqlValue) -> Tree:
    match value:
        case None:
            literal = {"kind": "NULL_LITERAL", "text": ""}
        case bool():
            literal = {"kind": "BOOLEAN", "text": "true" if value else "false"}
        case int():
            literal = {"kind": "INTEGER", "text": str(value)}
        case float():
            return cast(constant(repr(value)), "DOUBLE")
        case str():
            literal = {"kind": "STRING", "text": value}
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", **_PLACE, "literal": literal}


def call(name: str, *arguments: Tree) -> Tree:
    return {
        "class": "FUNCTION",
        "type": "FUNCTION",
        **_PLACE,
        "function_name": name,
        "schema": "",
        "filter": None,
        "order_bys": {"type": "ORDER_MODIFIER", "orders": []},
        "distinct": False,
        "is_operator": False,
        "export_state": False,
        "catalog": "",
        "arguments": [{"name": "", "expression": argument} for argument in arguments],
        "qualified_name": {"path": [name]},
    }


def cast(child: Tree, kind: str, *, attempt: bool = False) -> Tree:
    """attempt: what cannot be cast is null."""
    shown = {
        "class": "TYPE",
        "type": "TYPE",
        **_PLACE,
        "catalog": "",
        "schema": "",
        "type_name": kind,
        "children": [],
        "qualified_name": {"path": [kind]},
    }
    return {
        "class": "CAST",
        "type": "OPERATOR_CAST",
        **_PLACE,
        "child": child,
        "try_cast": attempt,
        "type_expr": shown,
    }


_COMPARISONS = {">=": "COMPARE_GREATERTHANOREQUALTO", "<=": "COMPARE_LESSTHANOREQUALTO"}


def comparison(left: Tree, operator: str, right: Tree) -> Tree:
    return {"class": "COMPARISON", "type": _COMPARISONS[operator], **_PLACE, "left": left, "right": right}


def conjunction(*children: Tree) -> Tree:
    return {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", **_PLACE, "children": list(children)}


def table(name: str, alias: str, columns: list[str]) -> Tree:
    return {
        "type": "BASE_TABLE",
        **_PLACE,
        "alias": alias,
        "sample": None,
        "schema_name": "",
        "table_name": name,
        "column_name_alias": columns,
        "catalog_name": "",
        "at_clause": None,
        "qualified_name": {"path": [name]},
    }


def select(expression: Tree) -> Tree:
    """A statement of one value."""
    node: dict[str, Any] = {
        "type": "SELECT_NODE",
        "modifiers": [],
        "cte_map": {"map": []},
        "select_list": [expression],
        "from_table": {"type": "EMPTY", "sample": None, **_PLACE},
        "where_clause": None,
        "group_expressions": [],
        "group_sets": [],
        "aggregate_handling": "STANDARD_HANDLING",
        "having": None,
        "sample": None,
        "qualify": None,
    }
    return {"node": node, "named_param_map": []}


def replace(node: Tree, by: Tree) -> None:
    """Put another expression where `node` is. What it is called in the answer stays."""
    alias = node["alias"]
    node.clear()
    node.update(by)
    node["alias"] = alias


def literal(node: Any) -> tuple[str, str] | None:
    """Kind and text of a constant: STRING, INTEGER, NUMERIC, BOOLEAN, NULL_LITERAL or another of DuckDB's. None for
    what is no constant."""
    if not isinstance(node, dict) or node.get("class") != "CONSTANT" or "literal" not in node:
        return None
    return node["literal"]["kind"], node["literal"]["text"]


def arguments(node: Tree) -> list[Tree]:
    return [argument["expression"] for argument in node["arguments"]]
