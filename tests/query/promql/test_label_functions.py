from __future__ import annotations

import numpy as np
import pytest

from streamgauge.errors import QueryFailed
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.query.promql.label_functions import absent_labels, label_join, label_replace, sort_by_labels
from streamgauge.query.promql.steps import Steps
from streamgauge.query.promql.values import InstantVector, no_names


def vector(*labels: dict[str, str]) -> InstantVector:
    steps = Steps(np.arange(float(len(labels)))[:, None], np.ones((len(labels), 1), np.bool_))
    return InstantVector(LabelFrame.of(labels), steps, no_names(len(labels)))


@pytest.mark.parametrize(
    ("value", "pattern", "replacement", "result"),
    [
        ("api-server", "(.*)-(.*)", "$2-$1", "server-api"),
        ("api-server", "(.*)-(.*)", "${2}x${1}", "serverxapi"),
        ("api-server", "(.*)-(.*)", "$2x$1", "api"),  # $2x is the group named 2x
        ("api-server", "(?P<first>[a-z]+)-(?:server)", "$first!", "api!"),
        ("api-server", "(?<first>[a-z]+).*", "${first}$$", "api$"),
        ("api-server", "api", "x", None),  # only the whole value matches
        ("api-server", "(x)?api.*", "[$1]", "[]"),
        ("api-server", ".*", "$0", "api-server"),
        ("api-server", ".*", "", ""),
        ("a\nb", "a.b", "dot", "dot"),
        ("(x)", r"\((.)[)]", "$1", "x"),
        ("a]b", r"[^]]*[]](.*)", "$1", "b"),
        ("ab", "(?i)(A)(B)", "$2$1", "ba"),
        ("ab", "(?i:(A))(B)?(b)", "$1$2$3", "ab"),
        ("abcdefghijk", "(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)(k)", "$11$10$1", "kja"),
        ("ab", "(.*)", r"\1$nope", r"\1"),
        ("xxy", "(x*)(y?)(z?)", "$2$1$3", "yxx"),
        ("größe", "gr(.*)e", "$1", "öß"),
    ],
)
def test_a_replacement(value: str, pattern: str, replacement: str, result: str | None) -> None:
    replaced = label_replace(vector({"src": value, "dst": "old"}), "dst", replacement, "src", pattern)
    assert replaced.labels.labels(0).get("dst", "") == ("old" if result is None else result)


def test_an_absent_label_is_the_empty_text() -> None:
    replaced = label_replace(vector({"a": "1"}, {"src": "y"}), "dst", "was empty", "src", "")
    assert [labels.get("dst") for labels in replaced.labels] == ["was empty", None]


def test_the_metric_name_can_be_made_and_read() -> None:
    before = vector({"__name__": "m", "a": "1"})
    before = before.renamed(before.steps)
    named = label_replace(before, "__name__", "new_$1", "__name__", "(.*)")
    assert (named.labels.labels(0)["__name__"], named.nameless.tolist()) == ("new_m", [False])
    copied = label_replace(before, "was", "$1", "__name__", "(.*)")
    assert (copied.labels.labels(0)["was"], copied.nameless.tolist()) == ("m", [True])


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "[b-a]", "(?P<n", "a**", "\\8"])
def test_a_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(QueryFailed, match="invalid regular expression in label_replace"):
        label_replace(vector({"a": "1"}), "b", "", "a", pattern)


def test_a_backtracking_pattern_takes_no_time() -> None:
    label_replace(vector({"a": "a" * 5_000}), "b", "$1", "a", "(a|aa|a?a*)*b")


def test_joining() -> None:
    joined = label_join(vector({"a": "1", "c": "3"}, {"b": "2"}), "d", "-", ["a", "b", "c"])
    assert [labels["d"] for labels in joined.labels] == ["1--3", "-2-"]
    emptied = label_join(vector({"a": "1", "d": "x"}), "d", "-", [])
    assert list(emptied.labels) == [{"a": "1"}]
    with pytest.raises(QueryFailed, match="invalid source label name"):
        label_join(vector({"a": "1"}), "d", "-", [""])


def test_natural_order() -> None:
    names = ["node10", "node9", "node1", "x", "", "node09", "node2b", "node2a", "node" + "9" * 5_000]
    ordered = sort_by_labels(
        vector(*({"n": name, "i": str(i)} for i, name in enumerate(names))), ["n"], descending=False
    )
    got = [labels.get("n", "") for labels in ordered.labels]
    assert got[:3] == ["", "node1", "node2a"]
    assert got[3:] == ["node2b", "node09", "node9", "node10", "node" + "9" * 5_000, "x"]


def test_labels_that_an_absent_series_would_have() -> None:
    equal, regex, unequal = MatchOp.EQUAL, MatchOp.MATCH, MatchOp.NOT_EQUAL
    matchers = [
        Matcher("__name__", equal, "m"),
        Matcher("a", equal, "1"),
        Matcher("b", regex, "2"),
        Matcher("c", equal, "3"),
        Matcher("c", unequal, "4"),
        Matcher("d", equal, ""),
        Matcher("e", regex, ".+"),
        Matcher("e", equal, "5"),
    ]
    assert absent_labels(matchers) == {"a": "1", "e": "5"}
