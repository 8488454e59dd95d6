"""The syntax tree as text, laid out for reading, and as the JSON of /api/v1/parse_query.

Prometheus' rules for the layout: what fits into 100 characters stays on one line, what does not is broken at its
outermost bracket or operator, two spaces a level.
"""

from __future__ import annotations

import json
import re
from typing import Any

from streamgauge.query.promql.frames import METRIC_NAME
from streamgauge.query.promql.nodes import (
    Aggregate,
    Anchor,
    At,
    Binary,
    Call,
    Cardinality,
    Matching,
    MatrixSelector,
    Node,
    Number,
    Paren,
    Selector,
    Subquery,
    Text,
    Unary,
)
from streamgauge.query.promql.numbers import go_format, plain_format
from streamgauge.query.promql.parser import parse

WIDTH = 100
INDENT = "  "

_UNITS = (("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def format_query(expr: str) -> str:
    """The expression in Prometheus' layout. Raises BadInput."""
    return _pretty(parse(expr), 0)


def parse_tree(expr: str) -> dict[str, Any]:
    """The expression as the JSON object of /api/v1/parse_query. Raises BadInput."""
    return _tree(parse(expr))


# ---- layout -------------------------------------------------------------------------------------------------------


def _pretty(node: Node, level: int) -> str:
    indent = INDENT * level
    line = _line(node)
    if len(line) <= WIDTH:
        return indent + line
    match node:
        case Aggregate():
            parts = [part for part in (node.param, node.expr) if part is not None]
            return indent + _aggregation(node) + _in_brackets(parts, level)
        case Call():
            return indent + node.function + _in_brackets(node.args, level)
        case Paren():
            return indent + _in_brackets((node.expr,), level)
        case Unary():
            return f"{indent}-{_pretty(node.expr, level).lstrip()}"
        case Subquery():
            return _pretty(node.expr, level) + _subquery_range(node)
        case Binary():
            return _pretty_chain(node, level)
    return indent + line


def _in_brackets(parts: tuple[Node, ...] | list[Node], level: int) -> str:
    inner = ",\n".join(_pretty(part, level + 1) for part in parts)
    return f"(\n{inner}\n{INDENT * level})"


def _pretty_chain(node: Binary, level: int) -> str:
    """A chain of operators that lean to the left, each on a line of its own. A loop: chains may be long."""
    chain: list[tuple[Binary, int]] = []
    first: Node = node
    while isinstance(first, Binary) and len(_line(first)) > WIDTH:
        chain.append((first, level))
        first, level = first.lhs, level + 1
    lines = [_pretty(first, level)]
    for link, depth in reversed(chain):
        lines += [INDENT * depth + _operator(link), _pretty(link.rhs, depth + 1)]
    return "\n".join(lines)


# ---- one line -----------------------------------------------------------------------------------------------------


def _line(node: Node) -> str:
    match node:
        case Number():
            return plain_format(node.value)
        case Text():
            return _quoted(node.value)
        case Selector():
            return _selector(node) + _at_and_offset(node.at, node.offset)
        case MatrixSelector():
            selector = node.selector
            return f"{_selector(selector)}[{_duration(node.range)}]{_at_and_offset(selector.at, selector.offset)}"
        case Subquery():
            return _line(node.expr) + _subquery_range(node)
        case Call():
            return f"{node.function}({', '.join(map(_line, node.args))})"
        case Aggregate():
            param = "" if node.param is None else _line(node.param) + ", "
            return f"{_aggregation(node)}({param}{_line(node.expr)})"
        case Paren():
            return f"({_line(node.expr)})"
        case Unary():
            return f"-{_line(node.expr)}"
        case Binary():
            parts: list[str] = []
            first: Node = node
            while isinstance(first, Binary):
                parts += [_line(first.rhs), _operator(first)]
                first = first.lhs
            return " ".join([_line(first), *reversed(parts)])


def _selector(node: Selector) -> str:
    name = node.name
    matchers = [matcher for matcher in node.matchers if not (name and matcher.name == METRIC_NAME)]
    texts = sorted(f"{_label(matcher.name)}{matcher.op.value}{_quoted(matcher.value)}" for matcher in matchers)
    return f"{name}{{{','.join(texts)}}}" if texts or not name else name


def _at_and_offset(at: At, offset: int) -> str:
    text = ""
    if isinstance(at, Anchor):
        text = f" @ {at.value}()"
    elif at is not None:
        text = f" @ {at / 1000:.3f}"
    return f"{text} offset {_duration(offset)}" if offset else text


def _subquery_range(node: Subquery) -> str:
    step = "" if node.step is None else _duration(node.step)
    return f"[{_duration(node.range)}:{step}]{_at_and_offset(node.at, node.offset)}"


def _duration(milliseconds: int) -> str:
    if milliseconds < 0:
        return "-" + _duration(-milliseconds)
    text = ""
    for unit, size in _UNITS:
        # A year or a week is named only where it comes out even: 400d stays 400d.
        if unit in "yw" and milliseconds % size:
            continue
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text + f"{milliseconds}ms" if milliseconds else text or "0s"


def _aggregation(node: Aggregate) -> str:
    if not node.without and not node.grouping:
        return node.op
    return f"{node.op} {'without' if node.without else 'by'} ({_labels(node.grouping)}) "


def _operator(node: Binary) -> str:
    return node.op + (" bool" if node.return_bool else "") + (_matching(node.matching) if node.matching else "")


def _matching(matching: Matching) -> str:
    text = ""
    grouped = matching.cardinality in (Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY)
    if matching.labels or matching.on or grouped:
        text = f" {'on' if matching.on else 'ignoring'} ({_labels(matching.labels)})"
    if grouped:
        side = "left" if matching.cardinality is Cardinality.MANY_TO_ONE else "right"
        text += f" group_{side} ({_labels(matching.include)})"
    left, right = matching.fill_left, matching.fill_right
    if left is not None and left == right:
        return f"{text} fill ({go_format(left)})"
    text += "" if left is None else f" fill_left ({go_format(left)})"
    return text + ("" if right is None else f" fill_right ({go_format(right)})")


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(map(_label, names))


def _label(name: str) -> str:
    return name if _LABEL_NAME.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


# ---- JSON ---------------------------------------------------------------------------------------------------------


def _tree(node: Node) -> dict[str, Any]:
    match node:
        case Number():
            return {"type": "numberLiteral", "val": plain_format(node.value)}
        case Text():
            return {"type": "stringLiteral", "val": node.value}
        case Selector():
            return {"type": "vectorSelector", **_selector_tree(node)}
        case MatrixSelector():
            return {"type": "matrixSelector", "range": node.range, "rangeExpr": None, **_selector_tree(node.selector)}
        case Subquery():
            return {
                "type": "subquery",
                "expr": _tree(node.expr),
                "range": node.range,
                "rangeExpr": None,
                "step": node.step or 0,
                "stepExpr": None,
                **_time_tree(node.at, node.offset),
            }
        case Call():
            return {"type": "call", "func": _function_tree(node), "args": [_tree(arg) for arg in node.args]}
        case Aggregate():
            return {
                "type": "aggregation",
                "op": node.op,
                "expr": _tree(node.expr),
                "param": None if node.param is None else _tree(node.param),
                "grouping": list(node.grouping),
                "without": node.without,
            }
        case Paren():
            return {"type": "parenExpr", "expr": _tree(node.expr)}
        case Unary():
            return {"type": "unaryExpr", "op": "-", "expr": _tree(node.expr)}
        case Binary():
            return _chain_tree(node)


def _chain_tree(node: Binary) -> dict[str, Any]:
    chain = [node]
    while isinstance(lhs := chain[-1].lhs, Binary):
        chain.append(lhs)
    left = _tree(chain[-1].lhs)
    for link in reversed(chain):
        left = {
            "type": "binaryExpr",
            "op": link.op,
            "lhs": left,
            "rhs": _tree(link.rhs),
            "matching": _matching_tree(link.matching),
            "bool": link.return_bool,
        }
    return left


def _matching_tree(matching: Matching | None) -> dict[str, Any] | None:
    if matching is None:
        return None
    return {
        "card": matching.cardinality.value,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    }


def _selector_tree(node: Selector) -> dict[str, Any]:
    matchers = [{"name": matcher.name, "value": matcher.value, "type": matcher.op.value} for matcher in node.matchers]
    extensions = {"anchored": False, "smoothed": False}
    return {"name": node.name, "matchers": matchers, **_time_tree(node.at, node.offset), **extensions}


def _time_tree(at: At, offset: int) -> dict[str, Any]:
    return {
        "offset": offset,
        "offsetExpr": None,
        "timestamp": at if isinstance(at, int) else None,
        "startOrEnd": at.value if isinstance(at, Anchor) else None,
    }


def _function_tree(node: Call) -> dict[str, Any]:
    signature = node.signature
    return {
        "name": node.function,
        "argTypes": [argument.word for argument in signature.arguments],
        "variadic": signature.variadic,
        "returnType": signature.returns.word,
    }
