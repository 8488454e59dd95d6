"""ORDER BY insert_datetime LIMIT n, of whole events: the most common question there is.

DuckDB puts together the payload of every event before it chooses n of them. So the times of the chosen ones are found
first, of which no payload is needed, and become a condition of the query: of 500,000 events `SELECT * … LIMIT 20` took
1.4 s of a processor, and takes 0.3 s.
"""

from __future__ import annotations

import copy

from streamgauge.query.sql import tree
from streamgauge.query.sql.schema import EVENTS
from streamgauge.query.sql.syntax import Tree, nodes

MAX_ROWS = 10_000
"""Of a LIMIT for which this is worth it."""
_TIME = "insert_datetime"


def times_of_chosen(statement: Tree) -> tuple[Tree, int, bool] | None:
    """A statement for the times of the events that will be chosen, how many these are, and whether they are the latest.
    None for a query that is of another kind."""
    node = statement["node"]
    if node["type"] != "SELECT_NODE" or not _is_plain(node):
        return None
    by_type = {modifier["type"]: modifier for modifier in node["modifiers"]}
    if by_type.keys() != {"ORDER_MODIFIER", "LIMIT_MODIFIER"} or by_type["LIMIT_MODIFIER"]["limit_type"] != "ROW_COUNT":
        return None
    first, count = by_type["ORDER_MODIFIER"]["orders"][0], _count(by_type["LIMIT_MODIFIER"])
    time = first["expression"]
    if time["class"] != "COLUMN_REF" or str(time["column_names"][-1]).lower() != _TIME or not 0 < count <= MAX_ROWS:
        return None
    found = copy.deepcopy(statement)
    chosen = found["node"]
    chosen["select_list"] = [copy.deepcopy(time)]
    for modifier in chosen["modifiers"]:
        if modifier["type"] == "LIMIT_MODIFIER":
            modifier["limit"], modifier["offset"] = tree.constant(count), None
        else:
            del modifier["orders"][1:]
    return found, count, first["type"] == "DESCENDING"


def narrow(statement: Tree, last: int, latest: bool) -> None:
    """Let the query see only events up to the last one that it will choose, of which `last` is the time in us."""
    node = statement["node"]
    order = next(modifier for modifier in node["modifiers"] if modifier["type"] == "ORDER_MODIFIER")["orders"][0]
    bound = tree.call("make_timestamptz", tree.constant(last))
    demanded = tree.comparison(copy.deepcopy(order["expression"]), ">=" if latest else "<=", bound)
    where = node["where_clause"]
    node["where_clause"] = demanded if where is None else tree.conjunction(where, demanded)


def _is_plain(node: Tree) -> bool:
    """Whether each row of the answer is of one event, and payloads are among what is asked for."""
    table = node["from_table"]
    if table["type"] != "BASE_TABLE" or str(table["table_name"]).lower() not in EVENTS or node["cte_map"]["map"]:
        return False
    if table["schema_name"] or table["sample"] or table["column_name_alias"] or node["sample"]:
        return False
    if node["group_expressions"] or node["having"] or node["qualify"]:
        return False
    if node["aggregate_handling"] != "STANDARD_HANDLING":
        return False
    asked = [each for each in nodes(node["select_list"]) if "class" in each]
    if any(each["class"] in ("WINDOW", "SUBQUERY") or each.get("function_name") == "unnest" for each in asked):
        return False
    if any(each["alias"].lower() == _TIME for each in asked):
        return False
    return any(each["class"] == "STAR" or "payload" in each.get("column_names", ()) for each in asked)


def _count(limit: Tree) -> int:
    """Rows that have to be looked at; 0 when that is no constant."""
    numbers = [tree.literal(limit[name]) for name in ("limit", "offset") if limit[name] is not None]
    if any(number is None or number[0] != "INTEGER" for number in numbers):
        return 0
    return sum(int(number[1]) for number in numbers if number is not None)
