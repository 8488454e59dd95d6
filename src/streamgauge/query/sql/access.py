"""Paths into columns of JSON, however they are written: x.a.b, x['a'], x->'a', json_extract(x, '$.a')."""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamgauge.query.sql import tree
from streamgauge.query.sql.json_path import key_path
from streamgauge.query.sql.relations import Path, Relation, Scope, Use
from streamgauge.query.sql.syntax import ARROW, Tree

_EXTRACTS = {
    ARROW: Use.JSON,
    "json_extract": Use.JSON,
    "json_extract_path": Use.JSON,
    "->>": Use.TEXT,
    "json_extract_string": Use.TEXT,
    "json_extract_path_text": Use.TEXT,
}


@dataclass(frozen=True, slots=True)
class Access:
    """A path into a column of JSON."""

    relation: Relation
    column: str
    path: Path
    use: Use  # as what it is wanted by the way it is written: x.a.b is NATURAL, x->'a' JSON, x->>'a' TEXT


def access_of(node: Tree, scope: Scope) -> Access | None:
    """A path into a column of JSON, however it is written."""
    if node["class"] == "COLUMN_REF":
        found = scope.find(node["column_names"])
        if found is None or found[0].table.origin(found[1]) is None:
            return None
        relation, column, path = found
        return Access(relation, column, tuple(path), Use.NATURAL)
    if node["class"] == "FUNCTION" and str(node["function_name"]).lower() in _EXTRACTS:
        arguments = tree.arguments(node)
        use = _EXTRACTS[str(node["function_name"]).lower()]
    elif node["type"] == "ARRAY_EXTRACT":
        arguments, use = node["children"], Use.NATURAL
    else:
        return None
    if len(arguments) != 2:
        return None
    inner = access_of(arguments[0], scope)
    step = key_path(arguments[1], members_only=node["type"] == "ARRAY_EXTRACT")
    if inner is None or inner.use is Use.TEXT or step is None:
        return None
    return replace(inner, path=(*inner.path, *step), use=use)
