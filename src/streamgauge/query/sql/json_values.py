"""Values in a JSON text as what they are wanted, as SQL and as syntax trees."""

from __future__ import annotations

from streamgauge.query.sql import tree
from streamgauge.query.sql.json_path import written
from streamgauge.query.sql.relations import Path, Use
from streamgauge.query.sql.syntax import Tree


def quoted(text: str) -> str:
    """A string as SQL."""
    return "'" + text.replace("'", "''") + "'"


def value_of(json: Tree, path: Path, use: Use) -> Tree:
    """The value at a path of an expression of JSON, where nothing better is known of it."""
    where = tree.constant(written(path))
    if use in (Use.NATURAL, Use.JSON):
        return tree.call("json_extract", json, where)
    text = tree.call("json_extract_string", json, where)
    if use is Use.TEXT:
        return text
    return tree.cast(text, "BOOLEAN" if use is Use.BOOL else "DOUBLE", attempt=True)


def as_sql(json: str, path: Path, use: Use) -> str:
    """The same in SQL."""
    where = quoted(written(path))
    if use is Use.JSON:
        return f"json_extract({json}, {where})"
    return of_text(f"json_extract_string({json}, {where})", use)


def of_text(text: str, use: Use) -> str:
    """A text of a JSON value, strings without quotes, as what it is wanted."""
    if use is Use.BOOL:
        return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"
    return text if use is Use.TEXT else f"TRY_CAST({text} AS DOUBLE)"
