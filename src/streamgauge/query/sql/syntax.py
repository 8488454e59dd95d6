"""SQL text to DuckDB's own syntax tree and back. A tree is what `json_serialize_sql` makes: dicts, lists, scalars.

DuckDB reads `payload->'type' <> 'metric'` as payload->('type' <> 'metric'): its arrow is first of all that of lambdas,
and binds less than anything. Nobody means that, so the arrow is read under another name, as an operator that binds as
`->>` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from streamgauge.errors import BadInput, TooLarge
from streamgauge.query.sql.database import Session

Tree = dict[str, Any]

_SELECTS = frozenset({"SELECT", "WITH", "FROM", "VALUES", "TABLE"})

MAX_BYTES = 128 << 10
"""Of a query. A tree takes a hundred times as much; what people and dashboards write has a few kB."""

ARROW = "~>"
"""Stands for -> in a tree: of the same length, and nothing else to DuckDB."""


def parsed(session: Session, text: str) -> Tree:
    """The tree of the one SELECT that `text` holds. Raises BadInput and TooLarge."""
    raw = _utf8(text)
    answer = json.loads(session.called("json_serialize_sql", _with_tight_arrows(raw).decode()))
    if answer["error"]:
        raise BadInput(_refusal(answer, raw))
    statements: list[Tree] = answer["statements"]
    if len(statements) != 1:
        raise BadInput(f"a request holds one SELECT, and this one holds {_counted(len(statements))}")
    return statements[0]


def written(session: Session, statement: Tree) -> str:
    """A tree as SQL."""
    for node in nodes(statement):
        if node.get("function_name") == ARROW:
            node["function_name"], node["is_operator"] = "json_extract", False
            node["qualified_name"] = {"path": ["json_extract"]}
    whole = {"error": False, "statements": [statement]}
    return session.called("json_deserialize_sql", json.dumps(whole))


def nodes(tree: Any) -> Iterator[Tree]:
    """Every dict of a tree, from the root down."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _utf8(text: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise BadInput("the query is not UTF-8") from None
    if len(raw) > MAX_BYTES:
        raise TooLarge(f"a query is longer than {MAX_BYTES} bytes")
    if b"\0" in raw:
        raise BadInput("a query cannot hold a zero byte")
    return raw


def _with_tight_arrows(raw: bytes) -> bytes:
    """Of the same length."""
    arrowed = bytearray(raw)
    for begin, kind in duckdb.tokenize(raw.decode()):
        if (
            kind == duckdb.token_type.operator
            and raw[begin : begin + 2] == b"->"
            and raw[begin + 2 : begin + 3] != b">"
        ):
            arrowed[begin : begin + 2] = ARROW.encode()
    return bytes(arrowed)


def _refusal(answer: Tree, raw: bytes) -> str:
    if answer["error_type"] == "not implemented":
        words = (begin for begin, kind in duckdb.tokenize(raw.decode()) if kind != duckdb.token_type.comment)
        keyword = re.match(rb"[A-Za-z]+", raw[next(words, 0) :])
        named = keyword[0].decode().upper() if keyword else "this"
        if named in _SELECTS:
            return (
                "this SELECT has a part that is not answered here: a PIVOT needs its columns, as in ON a IN ('x', 'y')"
            )
        return f"{named} is not answered here: a request is one SELECT"
    message = str(answer["error_message"]).replace(ARROW, "->").partition(' Use "SET')[0]
    position = str(answer.get("position", ""))
    if not position.isdecimal():
        return message
    return f"{message} (at character {len(raw[: int(position)].decode(errors='ignore')) + 1})"


def _counted(statements: int) -> str:
    return f"{statements} statements" if statements else "no statement"
