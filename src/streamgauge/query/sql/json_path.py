"""Paths into JSON as people write them, and as DuckDB's functions take them."""

from __future__ import annotations

import re
from typing import Any

from streamgauge.query.sql import tree
from streamgauge.query.sql.relations import Path

_JSON_PATH = re.compile(r'\.([A-Za-z_][\w]*)|\."((?:[^"\\])*)"|\[(\d+)\]', re.ASCII)


def key_path(node: Any, members_only: bool = False) -> Path | None:
    """The path that a constant key of ->, ->> or […] stands for: a name, an index, $.a.b or /a/b. None for what is no
    constant, or cannot be told apart.

    members_only: an index is none, as of […], where it counts otherwise.
    """
    found = tree.literal(node)
    if found is None:
        return None
    kind, text = found
    if kind == "INTEGER" and text.isdecimal() and not members_only:
        return (int(text),)
    if kind != "STRING":
        return None
    if members_only or not text.startswith(("$", "/")):
        return (text,) if text else None
    return _json_path(text) if text.startswith("$") else _pointer(text)


def written(path: Path) -> str:
    """A path as DuckDB's functions take it."""
    if "" in path:  # its own kind of path does not know of such a name
        return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
    steps = (f"[{step}]" if isinstance(step, int) else '."' + _escaped(step) + '"' for step in path)
    return "$" + "".join(steps)


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _json_path(text: str) -> Path | None:
    steps: list[str | int] = []
    at = 1
    while at < len(text):
        step = _JSON_PATH.match(text, at)
        if step is None:
            return None
        plain, quoted, index = step.groups()
        steps.append(int(index) if index is not None else plain if plain is not None else quoted)
        at = step.end()
    return tuple(steps)


def _pointer(text: str) -> Path | None:
    """None where a step may be an index as well as a name."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")]
    return None if any(step.isdecimal() or step == "-" for step in steps) else tuple(steps)
