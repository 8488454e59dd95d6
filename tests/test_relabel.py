"""Relabelling, action by action."""

from __future__ import annotations

import hashlib

import pytest

from streamgauge.errors import BadInput
from streamgauge.relabel import Action, Relabelling, Rule, check, whole_match

LABELS = {"a": "foo", "b": "bar", "c": "baz"}


def apply(*rules: Rule, **labels: str) -> dict[str, str] | None:
    return Relabelling(rules).apply(labels or LABELS)


def test_replace() -> None:
    rule = Rule(source_labels=("a",), regex="f(.*)", target_label="d", replacement="ch${1}-ch$1")
    assert apply(rule) == {**LABELS, "d": "choo-choo"}
    joined = Rule(source_labels=("a", "x", "b"), separator="/", target_label="d")
    assert apply(joined) == {**LABELS, "d": "foo//bar"}
    assert apply(Rule(source_labels=("a",), regex="oo", target_label="d")) == LABELS, "the whole value has to match"
    assert apply(Rule(source_labels=("a",), regex="f|foo", target_label="a", replacement="x")) == {**LABELS, "a": "x"}
    assert apply(Rule(source_labels=("x",), target_label="a")) == {"b": "bar", "c": "baz"}, "an empty value is no label"
    assert apply(Rule(target_label="d", replacement="plain")) == {**LABELS, "d": "plain"}
    moved = Rule(source_labels=("a", "b"), regex="(.*);(?P<second>.*)", target_label="${second}_x", replacement="$1")
    assert apply(moved) == {**LABELS, "bar_x": "foo"}
    assert apply(Rule(source_labels=("a",), regex="(x)?.*", target_label="${1}", replacement="v")) == LABELS
    lines = Rule(source_labels=("a",), regex="x.y", target_label="d", replacement="dot")
    assert apply(lines, a="x\ny") == {"a": "x\ny", "d": "dot"}


@pytest.mark.parametrize(
    ("replacement", "value"),
    [
        *[("$$1", "$1"), ("$1x", ""), ("${1}x", "foox"), ("$9", ""), ("$-", "$-"), ("$", "$"), ("${", "${")],
        *[("$0", "foo"), ("$01", ""), ("${00}", ""), ("$1é", ""), ("${1}é", "fooé"), ("$1_", ""), ("$é", "")],
        ("$9999999999", ""),
    ],
)
def test_references(replacement: str, value: str) -> None:
    result = apply(Rule(source_labels=("a",), target_label="d", replacement=replacement))
    assert result is not None
    assert result.get("d", "") == value


def test_keep_and_drop() -> None:
    assert apply(Rule(Action.KEEP, ("a",), regex="fo+")) == LABELS
    assert apply(Rule(Action.KEEP, ("a",), regex="fo")) is None
    assert apply(Rule(Action.DROP, ("a", "b"), regex="foo;bar")) is None
    assert apply(Rule(Action.DROP, ("a",), regex="x")) == LABELS
    assert apply(Rule(Action.DROP, ("a",), regex="foo"), Rule(target_label="d", replacement="x")) is None


def test_keep_and_drop_equal() -> None:
    assert apply(Rule(Action.KEEP_EQUAL, ("a",), target_label="b"), a="1", b="1") == {"a": "1", "b": "1"}
    assert apply(Rule(Action.KEEP_EQUAL, ("a",), target_label="b")) is None
    assert apply(Rule(Action.DROP_EQUAL, ("a",), target_label="b"), a="1", b="1") is None
    assert apply(Rule(Action.DROP_EQUAL, ("a",), target_label="b")) == LABELS


def test_hashmod() -> None:
    for text in ("", "foo;bar", "é"):
        expected = int(hashlib.md5(text.encode()).hexdigest()[16:], 16) % 1000
        assert apply(Rule(Action.HASHMOD, ("a",), target_label="h", modulus=1000), a=text)["h"] == str(expected)  # type: ignore[index]
    assert apply(Rule(Action.HASHMOD, ("c",), target_label="d", modulus=1000)) == {**LABELS, "d": "976"}


def test_names() -> None:
    renamed = Rule(Action.LABELMAP, regex="__meta_(.+)", replacement="m_$1")
    assert apply(renamed, __meta_x="1", y="2") == {"__meta_x": "1", "m_x": "1", "y": "2"}
    assert apply(Rule(Action.LABELDROP, regex="a|b")) == {"c": "baz"}
    assert apply(Rule(Action.LABELKEEP, regex="a|b")) == {"a": "foo", "b": "bar"}


def test_case() -> None:
    assert apply(Rule(Action.UPPERCASE, ("a", "b"), target_label="d")) == {**LABELS, "d": "FOO;BAR"}
    assert apply(Rule(Action.LOWERCASE, ("a",), target_label="a"), a="ÄB") == {"a": "äb"}
    assert apply(Rule(Action.UPPERCASE, ("a",), target_label="a"), a="aß") == {"a": "Aß"}, "a letter stays one letter"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(Action.HASHMOD, ("a",), target_label="b"), "needs a modulus"),
        (Rule(Action.REPLACE, ("a",)), "needs a target_label"),
        (Rule(Action.UPPERCASE, ("a",), target_label="b", replacement="x"), "takes no replacement"),
        (Rule(Action.KEEP_EQUAL, ("a",), target_label="b", regex="x"), "takes only source_labels and target_label"),
        (Rule(Action.LABELDROP, ("a",), regex="x"), "takes only a regex"),
        (Rule(Action.LABELMAP, regex="x", replacement=""), "needs a replacement"),
        (Rule(Action.KEEP, ("a",), regex="("), "bad regular expression: missing"),
        (Rule(Action.KEEP, ("a",), regex="(?=x)"), "bad regular expression"),
    ],
)
def test_a_rule_that_makes_no_sense(rule: Rule, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check(rule)


def test_a_whole_match_is_anchored_at_both_ends() -> None:
    matches = whole_match("a.|b")
    assert [matches(text) for text in ("ab", "a\n", "b", "abc", "xb", "")] == [True, True, True, False, False, False]
    with pytest.raises(BadInput, match="bad regular expression"):
        whole_match("(")
