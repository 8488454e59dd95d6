"""PromQL text to our syntax tree. The only module that knows the promql-parser package.

The package checks the grammar and the types. Added here: the limits and error positions of `scan`, a stack that
suffices on every platform, the sentences of Prometheus, and refusals of what Prometheus refuses but not the package.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import promql_parser as package
import pyarrow as pa

from streamgauge.errors import BadInput
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.query.promql.matchers import matches_empty
from streamgauge.query.promql.nodes import (
    COMPARISONS,
    SET_OPERATORS,
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
    Signature,
    Subquery,
    Text,
    Type,
    Unary,
)
from streamgauge.query.promql.scan import Scan, parse_error, quote, scan

STACK_BYTES = 16 << 20
"""The package needs about 2 KB an operator, the main thread of Windows has 1 MiB. Only touched pages cost memory."""

SMALL_BYTES = 256
"""Of a text that is parsed where it is asked for: whatever it says, 512 KiB of stack are enough, and a main thread has
twice that everywhere. To hand it to another thread takes longer than to parse it."""

METRIC_NAME = "__name__"

_EXPECTED = re.compile(r"expected type (\w+) in (.*), got (\w+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {"Vector": Type.VECTOR, "Scalar": Type.SCALAR, "Matrix": Type.MATRIX, "String": Type.STRING}
_OPS = {"Equal": MatchOp.EQUAL, "NotEqual": MatchOp.NOT_EQUAL, "Re": MatchOp.MATCH, "NotRe": MatchOp.NOT_MATCH}
_CARDINALITIES = {
    "OneToOne": Cardinality.ONE_TO_ONE,
    "ManyToOne": Cardinality.MANY_TO_ONE,
    "OneToMany": Cardinality.ONE_TO_MANY,
    "ManyToMany": Cardinality.MANY_TO_MANY,
}
_TIME_DEPENDENT = frozenset({"time", "timestamp", "predict_linear"})
_CALENDAR = frozenset(
    {"minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"}
)


def parse(text: str) -> Node:
    """Parse an expression.

    Raises BadInput, worded `line:column: parse error: …` where a place is known, for what is not PromQL and for what is
    too large or too deep.
    """
    found = scan(text)
    try:
        if len(text) <= SMALL_BYTES:
            return _parse_scanned(text, found)
        return _large_stack().submit(_parse_scanned, text, found).result()
    except RecursionError:
        raise BadInput("the query is nested too deeply") from None


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """Parse an instant vector selector, as `match[]` takes it.

    Raises BadInput for anything else, also for one whose matchers all match the empty string: it would select nearly
    every series.
    """
    node = parse(text)
    if not isinstance(node, Selector) or node.offset or node.at is not None:
        raise parse_error(text, 0, f"expected a series selector without modifiers, got {quote(text)}")
    return node.matchers


@cache
def _large_stack() -> ThreadPoolExecutor:
    """One thread, which is kept: the stack of a new one would have to be mapped anew at each query, for half a
    millisecond."""
    executor = ThreadPoolExecutor(1, "promql-parser")
    before = threading.stack_size(STACK_BYTES)
    try:
        executor.submit(int).result()
    finally:
        threading.stack_size(before)
    return executor


def _parse_scanned(text: str, found: Scan) -> Node:
    try:
        tree = package.parse(_with_demand(text, found.info_braces))
        return _Converter(text, found).convert(tree)
    except ValueError as error:
        raise _refusal(text, found, str(error)) from None
    except (BadInput, RecursionError):
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _refusal(text, found, "a number or time is out of range") from None


def _refusal(text: str, found: Scan, message: str) -> BadInput:
    """The package's message at the place that the scan found, or at the name that the message speaks of."""
    message = _reworded(message)
    if found.misplaced is not None:
        position, why = found.misplaced
        return parse_error(text, position, why if message == "invalid promql query" else message)
    for name in message.split('"')[1::2]:
        for kind, position in found.operands:
            if kind == "name" and text.startswith(name, position):
                return parse_error(text, position, message)
    return parse_error(text, found.operands[0][1] if found.operands else 0, message)


def _with_demand(text: str, braces: list[int]) -> str:
    """The text with a first matcher in the label selectors of info(), which the package refuses to be all optional."""
    for position in reversed(braces):
        text = f'{text[: position + 1]}{METRIC_NAME}!="",{text[position + 1 :]}'
    return text


def _reworded(message: str) -> str:
    """With Prometheus' names of the types and its quotation marks."""
    message = re.sub(r"'([\w ]+)'", r'"\1"', message)
    if expected := _EXPECTED.fullmatch(message):
        want, where, got = expected.groups()
        message = f"expected type {_type_name(want)} in {where}, got {_type_name(got)}"
    return message


def _type_name(word: str) -> str:
    return _TYPES[word.capitalize()].value if word.capitalize() in _TYPES else word


class _Converter:
    """Turns the package's tree into ours, left to right, so that positions can be dealt out in order of the text."""

    def __init__(self, text: str, found: Scan) -> None:
        self.text = text
        self.positions: Iterator[int] = iter(())
        self.operands = found.operands

    def convert(self, tree: Any) -> Node:
        self.positions = itertools.chain((position for _, position in self.operands), itertools.repeat(0))
        return self.node(tree)

    def error(self, position: int, message: str) -> BadInput:
        return parse_error(self.text, position, message)

    def node(self, tree: Any) -> Node:
        node: Node = getattr(self, "_" + type(tree).__name__)(tree)
        return node

    def _NumberLiteral(self, tree: Any) -> Node:
        return Number(tree.val, next(self.positions))

    def _StringLiteral(self, tree: Any) -> Node:
        return Text(tree.val, next(self.positions))

    def _ParenExpr(self, tree: Any) -> Node:
        inner = self.node(tree.expr)
        return Paren(inner, inner.position)

    def _UnaryExpr(self, tree: Any) -> Node:
        inner = self.node(tree.expr)
        return Unary(inner, inner.position)

    def _VectorSelector(self, tree: Any, *, in_info: bool = False) -> Selector:
        position = next(self.positions)
        if tree.matchers.or_matchers:
            raise self.error(position, 'unexpected "or" between label matchers')
        given = tree.matchers.matchers[1:] if in_info else tree.matchers.matchers  # see _with_demand
        matchers = tuple(Matcher(m.name, _OPS[str(m.op).rpartition(".")[2]], m.value) for m in given)
        name = tree.name or ""
        if name:
            matchers = (*matchers, Matcher(METRIC_NAME, MatchOp.EQUAL, name))
        self._check_matchers(matchers, position, in_info)
        return Selector(name, matchers, _ms(tree.offset), _at(tree.at), position)

    def _check_matchers(self, matchers: tuple[Matcher, ...], position: int, in_info: bool) -> None:
        names = [m.value for m in matchers if m.name == METRIC_NAME and m.op is MatchOp.EQUAL]
        if len(names) > 1 and not in_info:
            raise self.error(position, f"metric name must not be set twice: {quote(names[0])} or {quote(names[1])}")
        empty = []
        for matcher in matchers:
            try:
                empty.append(matches_empty(matcher))
            except pa.ArrowInvalid as error:
                raise self.error(position, f"invalid regular expression {quote(matcher.value)}: {error}") from None
        if not in_info and all(empty):
            raise self.error(position, "vector selector must contain at least one non-empty matcher")

    def _MatrixSelector(self, tree: Any) -> Node:
        return MatrixSelector(self._VectorSelector(tree.vector_selector), _ms(tree.range))

    def _SubqueryExpr(self, tree: Any) -> Node:
        inner = self.node(tree.expr)
        step = None if tree.step is None else _ms(tree.step)
        return Subquery(inner, _ms(tree.range), step, _ms(tree.offset), _at(tree.at), inner.position)

    def _Call(self, tree: Any) -> Node:
        position = next(self.positions)
        function, name = tree.func, tree.func.name
        args: list[Node] = []
        for i, arg in enumerate(tree.args):
            if name == "info" and i == 1:
                args.append(self._info_selector(arg))
            else:
                args.append(self.node(arg))
        signature = Signature(tuple(map(_type, function.arg_types)), function.variadic, _type(function.return_type))
        time_dependent = name in _TIME_DEPENDENT or (name in _CALENDAR and not args)
        if name == "timestamp" and isinstance(args[0], Selector):
            time_dependent = False  # then it tells the times of the samples
        invariant = not time_dependent and all(arg.invariant for arg in args)
        return Call(name, tuple(args), signature, position, invariant)

    def _info_selector(self, tree: Any) -> Node:
        if type(tree).__name__ != "VectorSelector":
            raise self.error(next(self.positions), "expected label selectors only")
        if tree.name:
            raise self.error(next(self.positions), "expected label selectors only, got vector selector instead")
        selector = self._VectorSelector(tree, in_info=True)
        if selector.offset or selector.at is not None:
            raise self.error(selector.position, "expected label selectors only")
        return selector

    def _AggregateExpr(self, tree: Any) -> Node:
        position = next(self.positions)
        param = None if tree.param is None else self.node(tree.param)
        expr = self.node(tree.expr)
        modifier = tree.modifier
        without = modifier is not None and str(modifier.type).endswith("Without")
        grouping = tuple(dict.fromkeys(modifier.labels)) if modifier is not None else ()
        invariant = expr.invariant and (param is None or param.invariant)
        return Aggregate(str(tree.op), expr, param, grouping, without, position, invariant)

    def _BinaryExpr(self, tree: Any) -> Node:
        """Chains of operators lean to the left: a loop, so that their length costs no stack."""
        spine = [tree]
        while type(spine[-1].lhs).__name__ == "BinaryExpr":
            spine.append(spine[-1].lhs)
        node = self.node(spine[-1].lhs)
        for link in reversed(spine):
            node = self._binary(link, node, self.node(link.rhs))
        return node

    def _binary(self, tree: Any, lhs: Node, rhs: Node) -> Binary:
        op = str(tree.op)
        modifier = tree.modifier
        vectors = lhs.type is Type.VECTOR and rhs.type is Type.VECTOR
        fills = modifier.fill_values if modifier is not None else None
        filled = fills is not None and (fills.lhs is not None or fills.rhs is not None)
        if filled and not vectors:
            raise self.error(lhs.position, "filling in missing series only allowed between instant vectors")
        if filled and op in SET_OPERATORS:
            raise self.error(lhs.position, "filling in missing series not allowed for set operators")
        return_bool = modifier is not None and bool(modifier.return_bool)
        if return_bool and op not in COMPARISONS:
            raise self.error(lhs.position, "bool modifier can only be used on comparison operators")
        kind = Type.VECTOR if Type.VECTOR in (lhs.type, rhs.type) else Type.SCALAR
        matching = _matching(op, modifier) if vectors else None
        return Binary(op, lhs, rhs, matching, return_bool, kind, lhs.position, lhs.invariant and rhs.invariant)


def _matching(op: str, modifier: Any) -> Matching:
    cardinality = Cardinality.MANY_TO_MANY if op in SET_OPERATORS else Cardinality.ONE_TO_ONE
    if modifier is None:
        return Matching(cardinality, False, (), (), None, None)
    if op not in SET_OPERATORS:
        cardinality = _CARDINALITIES[str(modifier.card).rpartition(".")[2]]
    labels = modifier.matching
    return Matching(
        cardinality,
        labels is not None and str(labels.type).endswith("Include"),
        tuple(dict.fromkeys(labels.labels)) if labels is not None else (),
        tuple(dict.fromkeys(modifier.group_labels or ())),
        modifier.fill_values.lhs if modifier.fill_values is not None else None,
        modifier.fill_values.rhs if modifier.fill_values is not None else None,
    )


def _type(value_type: Any) -> Type:
    return _TYPES[str(value_type).rpartition(".")[2]]


def _ms(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(milliseconds=1)


def _at(modifier: Any) -> At:
    if modifier is None:
        return None
    kind = str(modifier.type).rpartition(".")[2]
    if kind == "At":
        moment: datetime = modifier.at
        return round((moment - _EPOCH) / timedelta(milliseconds=1))
    return Anchor.START if kind == "Start" else Anchor.END
