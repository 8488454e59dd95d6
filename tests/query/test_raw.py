"""Series with all their samples: order, matchers, external labels, limits. Read through the SAMPLES form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cmp_to_key

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import BadInput, QueryCanceled, QueryFailed
from streamgauge.model.arrays import STALE_BITS, stale_marker
from streamgauge.model.frame import LabelFrame
from streamgauge.model.source import Matcher, MatchOp, Selector
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.labels import label_order
from streamgauge.query.raw import selector_text
from streamgauge.query.requests import Job, RawQuery
from streamgauge.testing import MemorySource
from streamgauge.testing.remote_read import ReadSeries, samples_answer
from streamgauge.wire.read_answers import SamplesFormat

EQUAL, NOT_EQUAL, MATCH, NOT_MATCH = MatchOp
FOREVER = (-(1 << 63), (1 << 63) - 1)

STORE = MemorySource.of(
    [
        ({"__name__": "up", "job": "b", "replica": "one"}, [10, 20], [1.0, 2.0]),
        ({"__name__": "up", "job": "a"}, [10, 20, 30], np.append([3.0, 4.0], stale_marker())),
        ({"__name__": "down"}, [15], [5.0]),
        ({"__name__": "up", "job": "c", "replica": "two"}, [10], [6.0]),
    ]
)


def matcher(name: str, op: MatchOp, value: str) -> Matcher:
    return Matcher(name, op, value)


def read(
    *selectors: Selector, external: Mapping[str, str] | None = None, source: MemorySource = STORE, limit: int = 1000
) -> list[list[ReadSeries]]:
    job = Job(RawQuery(selectors, SamplesFormat(), tuple((external or {}).items())), Limits(samples=limit))
    response = execute(job, source, Budget(job.limits))
    assert response.content_type == "application/x-protobuf"
    return samples_answer(b"".join(response.body))


def read_one(
    *matchers: Matcher, external: Mapping[str, str] | None = None, source: MemorySource = STORE
) -> list[ReadSeries]:
    return read(Selector(matchers, *FOREVER), external=external, source=source)[0]


def values(series: Sequence[ReadSeries]) -> list[list[float]]:
    return [np.array([bits for _, bits in one.samples], np.uint64).view(np.float64).tolist() for one in series]


def test_series_come_in_order_of_their_labels_with_all_samples() -> None:
    found = read_one(matcher("__name__", EQUAL, "up"))
    assert [dict(one.labels)["job"] for one in found] == ["a", "b", "c"]
    assert found[0].labels == (("__name__", "up"), ("job", "a"))
    assert [time for time, _ in found[0].samples] == [10, 20, 30]
    assert found[0].samples[2][1] == STALE_BITS
    assert values(found)[1:] == [[1.0, 2.0], [6.0]]


@pytest.mark.parametrize(
    ("given_matcher", "jobs"),
    [
        (matcher("job", EQUAL, "a"), ["a"]),
        (matcher("job", NOT_EQUAL, "a"), ["", "b", "c"]),
        (matcher("job", MATCH, "a|b"), ["a", "b"]),
        (matcher("job", MATCH, "[ab]?"), ["", "a", "b"]),
        (matcher("job", NOT_MATCH, "a|b"), ["", "c"]),
        (matcher("job", EQUAL, ""), [""]),
        (matcher("nope", EQUAL, ""), ["", "a", "b", "c"]),
        (matcher("nope", NOT_EQUAL, ""), []),
    ],
)
def test_every_kind_of_matcher(given_matcher: Matcher, jobs: list[str]) -> None:
    assert [dict(one.labels).get("job", "") for one in read_one(given_matcher)] == jobs


def test_every_query_has_its_own_matchers_and_range() -> None:
    up = (matcher("__name__", EQUAL, "up"), matcher("job", EQUAL, "a"))
    results = read(
        Selector(up, 20, 30), Selector(up, 21, 29), Selector(up, 30, 20), Selector(up, 10, 10), Selector((), 11, 15)
    )
    assert [[[time for time, _ in one.samples] for one in result] for result in results] == [
        [[20, 30]],
        [],
        [],
        [[10]],
        [[15]],
    ]


# ---- order ----------------------------------------------------------------------------------------------------------

LABELS = st.dictionaries(st.sampled_from("abcdö"), st.sampled_from(["0", "1", "10", "A", "ä", "\U0001f600", "\uffff"]))


def compare(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> int:
    """Pair after pair, each by its bytes; where all are equal the one with fewer pairs comes first."""
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            return -1 if [part.encode() for part in mine] < [part.encode() for part in yours] else 1
    return len(one) - len(other)


@given(st.lists(LABELS, max_size=12))
def test_the_order_is_that_of_the_pairs(label_sets: list[dict[str, str]]) -> None:
    order = label_order(LabelFrame.of(label_sets))
    ordered = [sorted(label_sets[row].items()) for row in order.tolist()]
    assert ordered == sorted((sorted(labels.items()) for labels in label_sets), key=cmp_to_key(compare))


def test_the_order_of_many_labels_with_many_values() -> None:
    """More combinations than 64 bits can number."""
    random = np.random.default_rng(5)
    label_sets = [
        {f"l{i:02}": f"{value:04}" for i, value in enumerate(row)} for row in random.integers(0, 900, (900, 12))
    ]
    order = label_order(LabelFrame.of(label_sets)).tolist()
    assert [label_sets[row] for row in order] == sorted(label_sets, key=lambda labels: sorted(labels.items()))


# ---- external labels ------------------------------------------------------------------------------------------------


def test_external_labels_are_added_to_series_without_them() -> None:
    found = read_one(matcher("__name__", EQUAL, "up"), external={"replica": "one", "Zone": "eu"})
    assert [one.labels for one in found] == [
        (("Zone", "eu"), ("__name__", "up"), ("job", "a"), ("replica", "one")),
        (("Zone", "eu"), ("__name__", "up"), ("job", "b"), ("replica", "one")),
        (("Zone", "eu"), ("__name__", "up"), ("job", "c"), ("replica", "two")),
    ]


@pytest.mark.parametrize("value", ["one", "a.b", r"\d|(x)[^y]{2}*+?$", "größe -#~&\n\t", "a|b"])
def test_a_matcher_for_an_external_label_finds_series_with_and_without_it(value: str) -> None:
    """Only a Prometheus' own external labels are absent from what it has stored; senders have put theirs on."""
    source = MemorySource.of(
        [({"i": "1"}, [1], [1.0]), ({"i": "2", "replica": value}, [1], [1.0]), ({"i": "3", "replica": "a"}, [1], [1.0])]
    )
    found = read_one(matcher("replica", EQUAL, value), external={"replica": value}, source=source)
    assert [one.labels for one in found] == [(("i", "1"), ("replica", value)), (("i", "2"), ("replica", value))]


def test_other_matchers_see_what_is_stored() -> None:
    external = {"replica": "one"}
    assert len(read_one(matcher("replica", MATCH, "one"), external=external)) == 1
    assert len(read_one(matcher("replica", NOT_EQUAL, "one"), external=external)) == 3
    assert [dict(one.labels)["job"] for one in read_one(matcher("replica", EQUAL, "two"), external=external)] == ["c"]


def test_series_that_external_labels_make_equal_are_one() -> None:
    source = MemorySource.of(
        [
            ({"i": "1", "replica": "one"}, [10, 20], [1.0, 2.0]),
            ({"i": "2", "replica": "one"}, [10], [3.0]),
            ({"i": "1"}, [5, 20, 30], [4.0, 5.0, 6.0]),
        ]
    )
    found = read_one(external={"replica": "one"}, source=source)
    assert [dict(one.labels)["i"] for one in found] == ["1", "2"]
    assert [[time for time, _ in one.samples] for one in found] == [[5, 10, 20, 30], [10]]
    assert values(found) == [[4.0, 1.0, 2.0, 6.0], [3.0]]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [MATCH, NOT_MATCH])
@pytest.mark.parametrize("pattern", ["a(", "a)|(b", "(?<x", "x{9999}"])
def test_a_bad_regular_expression_is_named_before_anything_is_read(op: MatchOp, pattern: str) -> None:
    good = Selector((), *FOREVER)
    with pytest.raises(BadInput) as caught:
        read(good, Selector((matcher("none", EQUAL, "x"), matcher("job", op, pattern)), *FOREVER), limit=0)
    assert f"invalid regular expression {pattern!r} of label 'job'" in caught.value.message


def test_all_queries_of_a_request_share_one_budget() -> None:
    up = Selector((matcher("__name__", EQUAL, "down"),), *FOREVER)
    assert len(read(up, up, up, limit=3)) == 3
    with pytest.raises(QueryFailed, match="more than 2 samples"):
        read(up, up, up, limit=2)


def test_it_stops_when_it_is_canceled() -> None:
    budget = Budget(Limits())
    body = execute(Job(RawQuery((Selector((), *FOREVER),) * 2, SamplesFormat())), STORE, budget).body
    next(body)
    budget.cancel()
    with pytest.raises(QueryCanceled):
        next(body)


def test_a_selector_is_shown_as_text() -> None:
    matchers = (matcher("__name__", EQUAL, "up"), matcher("job", NOT_MATCH, 'a"\\.größe'))
    assert selector_text(Selector(matchers, 0, 1)) == r'{__name__="up",job!~"a\"\\.größe"}'
