from __future__ import annotations

import threading

import pytest

from streamgauge.errors import BadInput
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.query.promql.nodes import Binary, Call, Cardinality, Matching, Selector, Type, bare
from streamgauge.query.promql.parser import parse, parse_selector


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("a b", '1:3: parse error: unexpected identifier "b"'),
        ("a +\n  b c", '2:5: parse error: unexpected identifier "c"'),
        ("sum(a", "1:6: parse error: unclosed left parenthesis"),
        ("a +", "1:4: parse error: unexpected end of input"),
        ("", "1:1: parse error: no expression found in input"),
        ("1 + nope(a)", '1:5: parse error: unknown function with name "nope"'),
        ("2 * rate(a)", '1:5: parse error: expected type range vector in call to function "rate", got instant vector'),
        ("abs(1)", '1:1: parse error: expected type instant vector in call to function "abs", got scalar'),
        ("1 == 1", "comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "bool modifier can only be used on comparison operators"),
        ("a and 1", 'set operator "and" not allowed in binary scalar expression'),
        ("a + on(x) group_left(x) b", 'label "x" must not occur in ON and GROUP clause at once'),
        ("a and fill(0) b", "filling in missing series not allowed for set operators"),
        ("a + fill(0) 1", "filling in missing series only allowed between instant vectors"),
        ("info(a, b)", "1:9: parse error: expected label selectors only, got vector selector instead"),
        ("info(a, 1)", "parse error"),
        ('a{b="c" or d="e"}', '1:1: parse error: unexpected "or" between label matchers'),
        ('{a=""}', "vector selector must contain at least one non-empty matcher"),
        ('{a=~".*"}', "vector selector must contain at least one non-empty matcher"),
        ('a{__name__="b"}', "metric name must not be set twice"),
        ('{__name__="a",__name__="b"}', "metric name must not be set twice"),
        ('a{b=~"("}', "parse error"),
        ("[1e20]", "1:2: parse error: duration out of range"),
        ("a[5m:1e20]", "duration out of range"),
        ("foo @ 1e20", "parse error"),
        ("a[0s]", "duration must be greater than 0"),
        ("a offset 5m offset 5m", "offset may not be set multiple times"),
        ("rate(a[5m:1m+1m])", "1:7: parse error: unexpected character inside brackets"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(query: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(query)
    assert message in refused.value.message


def test_offsets_and_durations_are_milliseconds() -> None:
    node = parse("m offset -1500ms")
    assert isinstance(node, Selector)
    assert node.offset == -1500
    node = parse("m @ 1.2344 offset 1.5")
    assert isinstance(node, Selector)
    assert (node.at, node.offset) == (1234, 1500)


def test_a_chain_of_operators_may_be_as_long_as_the_limit() -> None:
    node = parse(" - ".join(["a"] * 501))
    length = 0
    while isinstance(node, Binary):
        node, length = node.lhs, length + 1
    assert length == 500


def test_powers_lean_to_the_right_and_bind_more_than_a_sign() -> None:
    node = parse("2 ^ 3 ^ 4")
    assert isinstance(node, Binary)
    assert isinstance(node.rhs, Binary)
    assert type(parse("-1 ^ 2")).__name__ == "Unary"


def test_how_series_are_matched() -> None:
    node = parse("a * on (x, x) group_right (y) b")
    assert isinstance(node, Binary)
    assert node.matching == Matching(Cardinality.ONE_TO_MANY, True, ("x",), ("y",), None, None)
    node = parse("a or b")
    assert isinstance(node, Binary)
    assert node.matching == Matching(Cardinality.MANY_TO_MANY, False, (), (), None, None)
    node = parse("a + fill_left (2) fill_right (-3) b")
    assert isinstance(node, Binary)
    assert node.matching is not None
    assert (node.matching.fill_left, node.matching.fill_right) == (2.0, -3.0)


@pytest.mark.parametrize(
    ("query", "invariant"),
    [
        ("m", False),
        ("m @ 5", True),
        ("m @ end()", True),
        ("sum(m @ 5) + 1", True),
        ("sum(m @ 5) + m", False),
        ("rate(m[5m] @ 5)", True),
        ("time()", False),
        ("timestamp(m @ 5)", True),
        ("timestamp(abs(m @ 5))", False),
        ("minute()", False),
        ("minute(m @ 5)", True),
        ("predict_linear(m[5m] @ 5, 60)", False),
        ("sum_over_time((m @ 5)[5m:1m])", False),
        ("sum_over_time(m[5m:1m] @ 5)", True),
        ("start() + pi()", True),
    ],
)
def test_what_is_the_same_at_every_step(query: str, invariant: bool) -> None:
    assert parse(query).invariant is invariant


def test_types() -> None:
    assert [parse(query).type for query in ("1", "m", "m[1m]", "'x'", "1 + m", "-time()")] == [
        Type.SCALAR,
        Type.VECTOR,
        Type.MATRIX,
        Type.STRING,
        Type.VECTOR,
        Type.SCALAR,
    ]


def test_the_labels_of_info_may_all_be_optional() -> None:
    node = bare(parse('(info(m, {zone=~".*"}))'))
    assert isinstance(node, Call)
    assert isinstance(node.args[1], Selector)
    assert node.args[1].matchers == (Matcher("zone", MatchOp.MATCH, ".*"),)


def test_a_series_selector() -> None:
    assert parse_selector('up{job!="x"}') == (
        Matcher("job", MatchOp.NOT_EQUAL, "x"),
        Matcher("__name__", MatchOp.EQUAL, "up"),
    )
    assert parse_selector('{"a.b", c=~"d"}')[0] == Matcher("__name__", MatchOp.EQUAL, "a.b")


@pytest.mark.parametrize("text", ["rate(a[5m])", "a[5m]", "a offset 5m", "a @ 5", "1", "'a'", '{a=~".*"}', "a + b", ""])
def test_what_is_no_series_selector(text: str) -> None:
    with pytest.raises(BadInput):
        parse_selector(text)


def test_the_stack_size_of_other_threads_stays_as_it_was() -> None:
    before = threading.stack_size()
    parse("a")
    assert threading.stack_size() == before
