from __future__ import annotations

import json

import pytest

from streamgauge.errors import BadInput
from streamgauge.query.promql.format import format_query, parse_tree


@pytest.mark.parametrize(
    ("query", "formatted"),
    [
        ("a+b", "a + b"),
        ('sum by(x,y)(rate(a{c="d",b=~"e"}[5m]))', 'sum by (x, y) (rate(a{b=~"e",c="d"}[5m]))'),
        ("sum(a) without()", "sum without () (a)"),
        ("sum(a) by ()", "sum(a)"),
        ("a*on(x)group_left b", "a * on (x) group_left () b"),
        ("a>bool ignoring(x)group_right(y)b", "a > bool ignoring (x) group_right (y) b"),
        ("a+fill(1)b", "a + fill (1) b"),
        ("a+fill_right(1)fill_left(2)b", "a + fill_left (2) fill_right (1) b"),
        ("(a)[1h:]@end()offset -90s", "(a)[1h:] @ end() offset -1m30s"),
        ("a[2w]@5", "a[2w] @ 5.000"),
        ("a[15d]", "a[15d]"),
        ("topk(5,a)", "topk(5, a)"),
        ('{"a.b","c.d"="e"}', '{"c.d"="e",__name__="a.b"}'),
        ("'it''s'" and "'it\"s'", '"it\\"s"'),
        ("-a^2", "-a ^ 2"),
        ("1e6", "1000000"),
        ("Inf", "+Inf"),
    ],
)
def test_one_line(query: str, formatted: str) -> None:
    assert format_query(query) == formatted


def test_what_is_too_long_for_a_line_is_broken_at_its_outermost_bracket_or_operator() -> None:
    query = (
        "histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket{job='api'}[5m])))"
        " / on (job) group_left () some_limit"
    )
    assert format_query(query) == (
        "  histogram_quantile(\n"
        "    0.99,\n"
        '    sum by (le, job) (rate(http_request_duration_seconds_bucket{job="api"}[5m]))\n'
        "  )\n"
        "/ on (job) group_left ()\n"
        "  some_limit"
    )


def test_a_tree_is_what_the_api_promises() -> None:
    tree = parse_tree('sum by (a) (rate(m{b!="c"}[5m] offset 1m)) / on (a) group_left (d) x @ start() > bool 2')
    assert (tree["type"], tree["op"], tree["bool"], tree["matching"]) == ("binaryExpr", ">", True, None)
    assert tree["rhs"] == {"type": "numberLiteral", "val": "2"}
    division = tree["lhs"]
    assert division["matching"] == {
        "card": "many-to-one",
        "labels": ["a"],
        "on": True,
        "include": ["d"],
        "fillValues": {"lhs": None, "rhs": None},
    }
    assert division["rhs"]["startOrEnd"] == "start"
    aggregation = division["lhs"]
    assert (aggregation["grouping"], aggregation["without"], aggregation["param"]) == (["a"], False, None)
    call = aggregation["expr"]
    assert call["func"] == {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"}
    selector = call["args"][0]
    assert (selector["type"], selector["range"], selector["offset"]) == ("matrixSelector", 300_000, 60_000)
    assert selector["matchers"] == [
        {"name": "b", "value": "c", "type": "!="},
        {"name": "__name__", "value": "m", "type": "="},
    ]
    json.dumps(tree)


def test_a_long_chain_needs_no_deep_stack() -> None:
    query = " + ".join(["metric_with_a_name"] * 300)
    assert format_query(query).count("metric_with_a_name") == 300
    assert parse_tree(query)["type"] == "binaryExpr"


def test_a_bad_query_is_refused() -> None:
    with pytest.raises(BadInput):
        format_query("a +")
