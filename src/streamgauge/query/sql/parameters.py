"""Values that come beside a query, put into it as constants."""

from __future__ import annotations

from collections.abc import Mapping

from streamgauge.errors import BadInput
from streamgauge.query.requests import SqlValue
from streamgauge.query.sql import tree
from streamgauge.query.sql.syntax import Tree, nodes


def fill(statement: Tree, values: Mapping[str, SqlValue]) -> None:
    """Put the values in the places of $1, $2 and ?, or of $name. Raises BadInput when they are not the same."""
    used = set()
    for node in nodes(statement):
        if node.get("class") == "PARAMETER":
            name = str(node["identifier"])
            if name not in values:
                raise BadInput(f"the query has a parameter ${name}, and no value for it is given")
            used.add(name)
            tree.replace(node, tree.constant(values[name]))
    if unused := sorted(values.keys() - used):
        raise BadInput(f"a value is given for ${unused[0]}, and the query has no such parameter")
    statement["named_param_map"] = []
