"""What grew, since when and from where, against a recount in plain Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgauge.errors import QueryFailed
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import execute
from streamgauge.query.growth import BEGINNING, growth
from streamgauge.query.requests import GroupBy, GrowthQuery, Job, Order
from streamgauge.testing import MemorySource

MINUTE = 60_000
HOUR = 60 * MINUTE
HOURLY = GrowthQuery((), 0, HOUR, 5 * MINUTE, buckets=12)


@dataclass(frozen=True)
class Life:
    labels: Mapping[str, str]
    first: int
    last: int


def grown(lives: Sequence[Life], query: GrowthQuery, limits: Limits | None = None) -> dict[str, Any]:
    source = MemorySource.of([(one.labels, sorted({one.first, one.last}), [1.0] * 2) for one in lives])
    budget = Budget(limits or Limits())
    return growth(source.lifetimes([], budget), query, budget)


def stored(metric: str, numbers: range, first: int, last: int = HOUR, **labels: str) -> list[Life]:
    return [Life({"__name__": metric, "path": f"/{number}", **labels}, first, last) for number in numbers]


# ---- the story ------------------------------------------------------------------------------------------------------


def test_a_metric_that_explodes_is_named_with_the_time_the_label_and_the_job() -> None:
    lives = [
        *stored("requests", range(20), -HOUR, job="api"),
        *stored("requests", range(20, 25), 10 * MINUTE, job="web"),  # some come all the time
        *(Life({"__name__": "requests", "path": f"/u{n}", "job": "api"}, 14 * MINUTE + n, HOUR) for n in range(400)),
        *stored("quiet", range(300), -HOUR, job="api"),
    ]
    answer = grown(lives, replace(HOURLY, order=Order.CREATED))
    assert (answer["start"], answer["end"], answer["step"]) == (0.0, 3600.0, 300.0)
    assert [group["name"] for group in answer["groups"]] == ["requests"], "what did not grow is not listed"
    (group,) = answer["groups"]
    assert (group["series"], group["created"], group["ended"], group["active"]) == (425, 405, 0, 425)
    assert group["since"] == pytest.approx(840, abs=1), "though others came in the same five minutes"
    assert group["growth"] == [0, 0, 405] + [0] * 9
    assert group["label"] == {"name": "path", "values": 405}
    assert group["job"] == {"value": "api", "series": 400}
    assert answer["total"]["series"] == 725
    by_size = grown(lives, HOURLY)["groups"]
    assert [(group["name"], group["series"]) for group in by_size] == [("requests", 425), ("quiet", 300)]
    assert by_size[1]["since"] is None
    assert "label" not in by_size[1]


def test_growth_begins_where_it_is_no_longer_ordinary() -> None:
    few = [Life({"n": f"few{n}"}, n * 5 * MINUTE + 1, HOUR) for n in range(12)]
    many = [Life({"n": f"many{n}"}, 31 * MINUTE + n, HOUR) for n in range(BEGINNING * 3)]
    (group,) = grown([*few, *many], replace(HOURLY, names=("job",)))["groups"]
    assert group["since"] == pytest.approx(31 * 60, abs=1)
    (group,) = grown(few, replace(HOURLY, names=("job",)))["groups"]
    assert group["since"] == 0.001, "all of it is ordinary, and began before"


def test_what_ended_is_what_has_no_sample_lately() -> None:
    lives = [
        Life({"n": "active"}, -HOUR, 55 * MINUTE),
        Life({"n": "ended"}, -HOUR, 55 * MINUTE - 1),
        Life({"n": "ended at the start"}, -HOUR, 0),
        Life({"n": "ended before"}, -HOUR, -1),
        Life({"n": "came and went"}, 1, 2),
        Life({"n": "comes later"}, HOUR + 1, 2 * HOUR),
        Life({"n": "created last"}, HOUR, 2 * HOUR),
    ]
    total = grown(lives, HOURLY)["total"]
    assert (total["series"], total["active"], total["created"], total["ended"]) == (6, 2, 2, 3)
    assert total["growth"] == [1] + [0] * 10 + [1]


def test_groups_may_be_of_several_labels_and_of_none() -> None:
    lives = [
        Life({"job": "a", "instance": "1"}, 1, HOUR),
        Life({"job": "a", "instance": "1", "x": "y"}, 1, HOUR),
        Life({"job": "a"}, 1, HOUR),
        Life({"x": "z"}, 1, HOUR),
    ]
    groups = grown(lives, replace(HOURLY, names=("job", "instance", "never")))["groups"]
    assert [(group["labels"], group["series"]) for group in groups] == [
        ({"job": "a", "instance": "1", "never": ""}, 2),
        ({"job": "", "instance": "", "never": ""}, 1),
        ({"job": "a", "instance": "", "never": ""}, 1),
    ]
    assert groups[0]["name"] == "a,1,"
    assert "label" not in groups[0], "one value explains nothing"


def test_nothing_is_no_error() -> None:
    for by in GroupBy:
        answer = grown([], replace(HOURLY, by=by))
        assert answer["groups"] == []
        assert answer["total"]["series"] == 0
        assert answer["total"]["since"] is None


def test_the_budget_is_asked_first() -> None:
    with pytest.raises(QueryFailed, match="--query-max-bytes"):
        grown(stored("m", range(1000), 0), HOURLY, Limits(bytes=50_000))


def test_selectors_choose() -> None:
    lives = [*stored("a", range(3), 0), *stored("b", range(5), 0)]
    source = MemorySource.of([(one.labels, [one.first], [1.0]) for one in lives])
    job = Job(replace(HOURLY, matches=('{__name__="a"}', '{path="/4"}')))
    body = b"".join(execute(job, source, Budget(job.limits)).body).decode()
    assert '"total":{"series":4' in body


# ---- against a recount ----------------------------------------------------------------------------------------------

label_sets = st.dictionaries(st.sampled_from(["__name__", "job", "a"]), st.sampled_from("xyz"), min_size=1)
times = st.integers(-100, 200)
lives_of = st.lists(st.builds(Life, label_sets, times, times), max_size=25).map(
    lambda lives: [Life(one.labels, min(one.first, one.last), max(one.first, one.last)) for one in lives]
)
queries = st.builds(
    GrowthQuery,
    st.just(()),
    st.just(0),
    st.integers(1, 120),
    st.integers(1, 50),
    st.sampled_from(GroupBy),
    st.sampled_from([("__name__",), ("job",), ("job", "a"), ("never",)]),
    st.sampled_from(Order),
    st.integers(1, 5),
    st.integers(1, 4),
)


def recount(lives: Sequence[Life], query: GrowthQuery) -> dict[str, Any]:
    created = [one for one in lives if one.first >= query.start]
    width = math.ceil((query.end - query.start) / query.buckets)
    bucket = {one.first: min((one.first - query.start) // width, query.buckets - 1) for one in created}
    buckets = [0] * query.buckets
    for one in created:
        buckets[bucket[one.first]] += 1
    begun = next((at for at, count in enumerate(buckets) if count * BEGINNING >= max(buckets)), 0)
    first = sorted(one.first for one in created if bucket[one.first] == begun)
    active = [one for one in lives if one.last >= query.end - query.idle]
    return {
        "series": len(lives),
        "active": len(active),
        "created": len(created),
        "ended": sum(query.start <= one.last < query.end - query.idle for one in lives),
        "since": first[len(first) // BEGINNING] / 1000 if first else None,
        "growth": buckets,
    }


def groups_of(lives: Sequence[Life], query: GrowthQuery) -> dict[str, dict[str, Any]]:
    """What is known of each group by its name."""
    if query.by is GroupBy.LABEL:
        found = {}
        for name in {name for one in lives for name in one.labels}:
            values: dict[str, list[Life]] = {}
            for one in lives:
                if name in one.labels:
                    values.setdefault(one.labels[name], []).append(one)
            merged = [Life({}, min(v.first for v in of), max(v.last for v in of)) for of in values.values()]
            counts = recount(merged, query)
            found[name] = {"values": counts.pop("series"), **counts}
        return found
    members: dict[str, list[Life]] = {}
    for one in lives:
        if query.by is GroupBy.PAIR:
            names = [f"{name}={value}" for name, value in one.labels.items()]
        else:
            names = [",".join(one.labels.get(name, "") for name in query.names)]
        for name in names:
            members.setdefault(name, []).append(one)
    return {name: recount(of, query) for name, of in members.items()}


@given(lives_of, queries)
def test_every_number_is_that_of_a_recount(lives: list[Life], query: GrowthQuery) -> None:
    answer = grown(lives, query)
    known = [one for one in lives if one.first <= query.end]
    assert answer["total"] == recount(known, query)
    expected = groups_of(known, query)
    size = "values" if query.by is GroupBy.LABEL and query.order is Order.SERIES else query.order.value
    sizes = sorted((group[size] for group in expected.values() if group[size]), reverse=True)
    assert [group[size] for group in answer["groups"]] == sizes[: query.limit]
    for group in answer["groups"]:
        assert {name: group[name] for name in expected[group["name"]]} == expected[group["name"]]
        if (label := group.get("label")) is not None:
            mine = [one for one in known if one.first >= query.start and has(one, group["labels"])]
            assert label["values"] == len({one.labels[label["name"]] for one in mine if label["name"] in one.labels})
        if (job := group.get("job")) is not None:
            mine = [one for one in known if one.first >= query.start and has(one, group["labels"])]
            assert job["series"] == sum(one.labels.get("job") == job["value"] for one in mine)


def has(one: Life, labels: Mapping[str, str]) -> bool:
    return all(one.labels.get(name, "") == value for name, value in labels.items())
