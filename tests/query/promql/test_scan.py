from __future__ import annotations

import pytest

from streamgauge.errors import BadInput
from streamgauge.query.promql.scan import MAX_BYTES, MAX_DEPTH, MAX_OPERATORS, scan


@pytest.mark.parametrize(
    ("query", "position"),
    [
        ("a b", 2),
        ("a + * b", 4),
        ("sum(a", 5),
        ("sum(a))", 6),
        ("a +", 3),
        ("", 0),
        ("  # nothing\n", 0),
        ("a{b='c'", 1),
        ("sum by a (b)", 7),
        ("a[5m:1m:2m]", 1),
        ("a[5x]", 1),
        ("a offset b", 9),
        ("a @ foo", 4),
        ("(a, b)", 2),
        ("a == bool bool b", 16),
        ("a and and b", 6),
        ("a + on b", 7),
    ],
)
def test_it_finds_where_a_query_goes_wrong(query: str, position: int) -> None:
    found = scan(query).misplaced
    if found is None:  # what only the grammar of the parser refuses is left to it
        assert query == "a == bool bool b"
        return
    assert found[0] == position


@pytest.mark.parametrize(
    "query",
    [
        "sum by (on, by) (rate(a{b='c', d=~\"e\"}[5m] offset -1h @ start())) + on (x) group_left () b",
        "-1 + +2 ^ Inf",
        "topk(5, a) without (b)",
        "a fill_left(1) fill_right(2)" and "a + fill_left (1) fill_right (2) b",
        'info(a, {b="c"})',
        "time() > bool 5",
        "a # a comment (with brackets\n + b",
        "`raw \\` + 'q\\'uoted'",
        "foo:bar:baz[1h30m:15s] @ 1.5",
        "a ATAN2 b UNLESS c",
        "group(sum)",
    ],
)
def test_it_finds_nothing_wrong_with_a_query(query: str) -> None:
    assert scan(query).misplaced is None


def test_operands_stand_in_order_of_the_text() -> None:
    query = 'topk(5, sum by (a) (rate(b{c="d"}[5m]))) + {e="f"} * -g @ 7 offset 8m + label_join(h, "i", "")'
    starts = [query[position:].split("(")[0].split("{")[0].split(",")[0] for _, position in scan(query).operands]
    assert [text.split()[0] if text else "" for text in starts] == [
        "topk", "5", "sum", "rate", "b", "", "g", "label_join", "h", '"i"', '"")',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("a" * (MAX_BYTES + 1), f"has {MAX_BYTES + 1} bytes"),
        ("é" * (MAX_BYTES // 2 + 1), "bytes"),
        ("+".join(["a"] * (MAX_OPERATORS + 2)), f"more than {MAX_OPERATORS} operators"),
        ("a" + "[5m:1m]" * (MAX_OPERATORS + 1), f"more than {MAX_OPERATORS} operators"),
        ("(" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} levels"),
        ("-" * (MAX_DEPTH + 1) + "1", f"nested more than {MAX_DEPTH} levels"),
        ("^".join(["1"] * (MAX_DEPTH + 2)), f"nested more than {MAX_DEPTH} levels"),
        ("(-" * (MAX_DEPTH // 2 + 1) + "1", f"nested more than {MAX_DEPTH} levels"),
        ("a[1e20]", "duration out of range"),
        ("a offset 1e20", "duration out of range"),
        ("a @ -1", "before 1970"),
        ("'abc", "unterminated quoted string"),
        ("a[5m", "unclosed left bracket"),
        ("a ~ b", "unexpected character"),
        ('count_values("a\\xc5z", b)', "escapes above"),
    ],
)
def test_it_refuses_what_must_not_reach_the_parser(query: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        scan(query)


def test_the_limits_themselves_are_admitted() -> None:
    scan("+".join(["a"] * (MAX_OPERATORS + 1)))
    scan("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    scan("-" * MAX_DEPTH + "1")


def test_depth_is_counted_where_it_nests_and_not_where_it_ended() -> None:
    scan(" + ".join(["-(-(a ^ b))"] * 90))
