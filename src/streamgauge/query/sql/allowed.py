"""What a query may consist of. Everything that is not on the lists here is refused with a sentence that names it.

The database reaches nothing anyway (`database`); this is so that whoever tries learns what to write instead, and that
nobody sees the names which a query's own views have inside.
"""

from __future__ import annotations

from streamgauge.errors import BadInput
from streamgauge.query.sql.schema import SCHEMA
from streamgauge.query.sql.syntax import Tree, nodes

TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "promql"})

_STATEMENTS = {
    "COPY_QUERY_NODE": "COPY",
    "INSERT_QUERY_NODE": "INSERT",
    "UPDATE_QUERY_NODE": "UPDATE",
    "DELETE_QUERY_NODE": "DELETE",
    "MERGE_QUERY_NODE": "MERGE",
}
_TYPES = frozenset(
    {
        "SELECT_NODE",
        "SET_OPERATION_NODE",
        "RECURSIVE_CTE_NODE",
        "CTE_NODE",
        "BASE_TABLE",
        "SUBQUERY",
        "JOIN",
        "TABLE_FUNCTION",
        "EXPRESSION_LIST",
        "EMPTY",
        "PIVOT",
        "SHOW_REF",
        "ORDER_MODIFIER",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "DISTINCT_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
    }
)
_CLASSES = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "LAMBDA_REF",
        "OPERATOR",
        "PARAMETER",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    }
)
_FUNCTIONS = frozenset(
    {
        "current_catalog",
        "current_connection_id",
        "current_database",
        "current_query",
        "current_query_id",
        "current_role",
        "current_schema",
        "current_schemas",
        "current_setting",
        "current_transaction_id",
        "currval",
        "getenv",
        "getvariable",
        "get_block_size",
        "in_search_path",
        "index_key",
        "json_deserialize_sql",
        "json_serialize_plan",
        "json_serialize_sql",
        "nextval",
        "parse_duckdb_log_message",
        "session_user",
        "setval",
        "sleep_ms",
        "txid_current",
        "user",
        "write_log",
    }
)
_PREFIXES = ("__internal", "duckdb_", "pg_", "pragma_", "has_", "inet_")
"""Of functions, those with which they look at DuckDB itself and not at data."""


def check(tree: Tree) -> None:
    """Raise BadInput for what is not answered. Where tables are named is looked at elsewhere."""
    for node in nodes(tree):
        if "class" in node:
            _check_expression(node)
        elif isinstance(node.get("type"), str):
            _check_node(node)


def _check_expression(node: Tree) -> None:
    if node["class"] not in _CLASSES:
        raise BadInput(f"{_spoken(node['class'])} is not answered here")
    if node["class"] == "FUNCTION":
        name = str(node["function_name"]).lower()
        if name in _FUNCTIONS or name.startswith(_PREFIXES):
            raise BadInput(f"the function {name} looks at the database and not at data; it is not answered here")


def _check_node(node: Tree) -> None:
    kind = node["type"]
    if kind in _STATEMENTS:
        raise BadInput(f"{_STATEMENTS[kind]} is not answered here: a request is one SELECT")
    if kind not in _TYPES:
        raise BadInput(f"{_spoken(kind)} is not answered here")
    if kind == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"]).lower()
        if name not in TABLE_FUNCTIONS:
            raise BadInput(
                f"the table function {name} is not answered here: a query reads the views {', '.join(SCHEMA)}, and "
                f"{', '.join(sorted(TABLE_FUNCTIONS))}"
            )
    if kind == "SHOW_REF" and node["query"] is None:
        raise BadInput(f"SHOW is not answered here: the views are {', '.join(SCHEMA)}; DESCRIBE shows one")


def _spoken(name: str) -> str:
    return name.removesuffix("_QUERY_NODE").removesuffix("_NODE").replace("_", " ")
