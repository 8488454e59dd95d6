"""The syntax tree that the engine evaluates.

Every node knows its `type`, the `position` in the query where it starts, and whether it is `invariant`: the same at
every step of a range query, because all that it reads is pinned by `@`. Times and durations are ms.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from streamgauge.model.source import Matcher


class Type(enum.Enum):
    """The four types of PromQL, spelled as its error messages spell them."""

    SCALAR = "scalar"
    VECTOR = "instant vector"
    MATRIX = "range vector"
    STRING = "string"

    @property
    def word(self) -> str:
        """As the HTTP API spells it."""
        return {"instant vector": "vector", "range vector": "matrix"}.get(self.value, self.value)


class Anchor(enum.Enum):
    """`@ start()` and `@ end()`: the first and the last evaluation time of the query."""

    START = "start"
    END = "end"


At = int | Anchor | None


class Cardinality(enum.Enum):
    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class Matching:
    """How the series of two vectors are paired. `labels` are those of on(…) if `on`, else of ignoring(…)."""

    cardinality: Cardinality
    on: bool
    labels: tuple[str, ...]
    include: tuple[str, ...]
    fill_left: float | None
    fill_right: float | None


@dataclass(frozen=True, slots=True)
class Number:
    value: float
    position: int
    type: Type = Type.SCALAR
    invariant: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    position: int
    type: Type = Type.STRING
    invariant: bool = True


@dataclass(frozen=True, slots=True)
class Selector:
    """An instant vector selector. `name` is the name written before the braces; `matchers` include its matcher."""

    name: str
    matchers: tuple[Matcher, ...]
    offset: int
    at: At
    position: int
    type: Type = Type.VECTOR

    @property
    def invariant(self) -> bool:
        return self.at is not None


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    selector: Selector
    range: int
    type: Type = Type.MATRIX

    @property
    def position(self) -> int:
        return self.selector.position

    @property
    def invariant(self) -> bool:
        return self.selector.invariant


@dataclass(frozen=True, slots=True)
class Subquery:
    """`expr[range:step]`. A `step` of None means the default evaluation interval."""

    expr: Node
    range: int
    step: int | None
    offset: int
    at: At
    position: int
    type: Type = Type.MATRIX

    @property
    def invariant(self) -> bool:
        return self.at is not None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes, as /api/v1/parse_query tells it."""

    arguments: tuple[Type, ...]
    variadic: int
    returns: Type


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    args: tuple[Node, ...]
    signature: Signature
    position: int
    invariant: bool

    @property
    def type(self) -> Type:
        return self.signature.returns


@dataclass(frozen=True, slots=True)
class Aggregate:
    op: str
    expr: Node
    param: Node | None
    grouping: tuple[str, ...]
    without: bool
    position: int
    invariant: bool
    type: Type = Type.VECTOR


@dataclass(frozen=True, slots=True)
class Binary:
    """`matching` is set where both sides are vectors."""

    op: str
    lhs: Node
    rhs: Node
    matching: Matching | None
    return_bool: bool
    type: Type
    position: int
    invariant: bool


@dataclass(frozen=True, slots=True)
class Unary:
    """A minus sign. (The parser drops a plus sign.)"""

    expr: Node
    position: int

    @property
    def type(self) -> Type:
        return self.expr.type

    @property
    def invariant(self) -> bool:
        return self.expr.invariant


@dataclass(frozen=True, slots=True)
class Paren:
    expr: Node
    position: int

    @property
    def type(self) -> Type:
        return self.expr.type

    @property
    def invariant(self) -> bool:
        return self.expr.invariant


Node = Number | Text | Selector | MatrixSelector | Subquery | Call | Aggregate | Binary | Unary | Paren

SET_OPERATORS = frozenset({"and", "or", "unless"})
COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">="})


def bare(node: Node) -> Node:
    """The node without the brackets around it."""
    while isinstance(node, Paren):
        node = node.expr
    return node


def text_of(node: Any) -> str:
    """The value of a string argument."""
    inner = bare(node)
    assert isinstance(inner, Text)
    return inner.value
