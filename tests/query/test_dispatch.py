"""One job on a small store in memory, in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamgauge.errors import BadInput, QueryFailed
from streamgauge.model.arrays import stale_marker
from streamgauge.query.budget import Budget, Limits
from streamgauge.query.dispatch import TRUNCATED, execute
from streamgauge.query.requests import (
    CardinalityQuery,
    FederateQuery,
    FormatQuery,
    InstantQuery,
    Job,
    LabelNamesQuery,
    LabelValuesQuery,
    ParseQuery,
    PushedSeries,
    Query,
    RangeQuery,
    SelectorsQuery,
    SeriesQuery,
)
from streamgauge.testing import MemorySource

MINUTE = 60_000


STORE = MemorySource.of(
    [
        ({"__name__": "up", "job": "a", "instance": "1"}, [0, MINUTE, 2 * MINUTE], [1, 0, 1]),
        ({"__name__": "up", "job": "b", "instance": "2"}, [0, MINUTE, 2 * MINUTE], [1, 1, 1]),
        ({"__name__": "requests_total", "job": "a"}, [0, MINUTE, 2 * MINUTE], [10, 20, 40]),
        ({"__name__": "old", "job": "c"}, [-10 * MINUTE], [5]),
    ]
)


def body(query: Query, source: MemorySource = STORE, **settings: Any) -> bytes:
    job = Job(query, **settings)
    return b"".join(execute(job, source, Budget(job.limits), waited=0.5).body)


def answer(query: Query, source: MemorySource = STORE, **settings: Any) -> Any:
    envelope = json.loads(body(query, source, **settings))
    assert envelope["status"] == "success"
    return envelope


def data(query: Query, source: MemorySource = STORE) -> Any:
    return answer(query, source)["data"]


# ---- queries ------------------------------------------------------------------------------------------------------


def test_an_instant_query_answers_with_a_vector() -> None:
    assert data(InstantQuery('up{job="a"}', MINUTE + 1)) == {
        "resultType": "vector",
        "result": [{"metric": {"__name__": "up", "instance": "1", "job": "a"}, "value": [60.001, "0"]}],
    }


def test_an_instant_query_of_a_range_answers_with_samples() -> None:
    assert data(InstantQuery("requests_total[90s]", 2 * MINUTE))["result"] == [
        {"metric": {"__name__": "requests_total", "job": "a"}, "values": [[60, "20"], [120, "40"]]}
    ]


def test_scalars_and_strings_are_what_they_are() -> None:
    assert data(InstantQuery("1 / 0", 0)) == {"resultType": "scalar", "result": [0, "+Inf"]}
    assert data(InstantQuery('"text"', 0)) == {"resultType": "string", "result": [0, "text"]}


def test_a_range_query_has_a_step_at_its_end_only_if_the_grid_hits_it() -> None:
    result = data(RangeQuery("sum(up)", 0, 2 * MINUTE - 1, MINUTE))
    assert result == {"resultType": "matrix", "result": [{"metric": {}, "values": [[0, "2"], [60, "1"]]}]}


def test_the_end_that_a_query_speaks_of_is_the_one_asked_for() -> None:
    """Also where no step falls on it."""
    for expr, number in (('timestamp(up{job="a"} @ end())', "120"), ("end()", "120"), ("range()", "120")):
        result = data(RangeQuery(expr, 0, 2 * MINUTE, 90_000))
        assert result["result"][0]["values"] == [[0, number], [90, number]], expr


@pytest.mark.parametrize(
    "query", [InstantQuery("up", 0, limit=1), InstantQuery("up[1m]", 0, limit=1), RangeQuery("up", 0, 9, 1, limit=1)]
)
def test_a_limit_leaves_series_out_and_says_so(query: InstantQuery | RangeQuery) -> None:
    envelope = answer(query)
    assert [series["metric"]["job"] for series in envelope["data"]["result"]] == ["a"]
    assert envelope["warnings"] == [TRUNCATED]


@pytest.mark.parametrize("limit", [0, 2, 3])
def test_a_limit_that_is_not_passed_is_not_mentioned(limit: int) -> None:
    envelope = answer(InstantQuery("up", 0, limit=limit))
    assert len(envelope["data"]["result"]) == 2
    assert "warnings" not in envelope


def test_a_scalar_has_no_series_to_limit() -> None:
    assert "warnings" not in answer(InstantQuery("1", 0, limit=1))


def test_annotations_come_along() -> None:
    assert "infos" in answer(InstantQuery("rate(up[5m])", 2 * MINUTE))


def test_statistics_are_given_when_asked_for() -> None:
    stats = answer(RangeQuery("up", 0, MINUTE, MINUTE), stats=True)["data"]["stats"]
    assert stats["timings"]["execQueueTime"] == 0.5
    assert stats["timings"]["execTotalTime"] >= 0.5 + stats["timings"]["innerEvalTime"]
    assert stats["samples"]["peakSamples"] > 0
    assert stats["samples"]["totalQueryableSamples"] > 0
    assert "stats" not in data(RangeQuery("up", 0, MINUTE, MINUTE))


def test_errors_are_raised_before_the_answer_begins() -> None:
    with pytest.raises(BadInput, match="parse error"):
        body(InstantQuery("up{", 0))
    with pytest.raises(QueryFailed, match="more than 3 samples"):
        body(RangeQuery("up", 0, MINUTE, MINUTE), limits=Limits(samples=3))


# ---- labels -------------------------------------------------------------------------------------------------------


def test_series_are_those_that_match_any_of_the_selectors() -> None:
    series = data(SeriesQuery(('up{job="a"}', "requests_total"), 0, MINUTE))
    assert sorted(each["__name__"] for each in series) == ["requests_total", "up"]
    limited = answer(SeriesQuery(("up",), 0, MINUTE, limit=1))
    assert len(limited["data"]) == 1
    assert limited["warnings"] == [TRUNCATED]


def test_selectors_come_as_their_matchers() -> None:
    found = data(SelectorsQuery(('up{job=~"a|b",instance!="1"}', '{job="ü"}')))
    assert found == [
        [["job", "=~", "a|b"], ["instance", "!=", "1"], ["__name__", "=", "up"]],
        [["job", "=", "ü"]],
    ]
    with pytest.raises(BadInput, match="expected a series selector"):
        body(SelectorsQuery(("up", "up + 1")))


def test_label_names_are_those_in_use() -> None:
    assert data(LabelNamesQuery((), 0, MINUTE)) == ["__name__", "instance", "job"]
    assert data(LabelNamesQuery(("requests_total",), 0, MINUTE)) == ["__name__", "job"]
    assert answer(LabelNamesQuery((), 0, MINUTE, limit=2))["data"] == ["__name__", "instance"]


def test_label_values_are_those_in_use_in_order() -> None:
    assert data(LabelValuesQuery("job", (), -20 * MINUTE, MINUTE)) == ["a", "b", "c"]
    assert data(LabelValuesQuery("job", (), 0, MINUTE)) == ["a", "b"]
    assert data(LabelValuesQuery("instance", ('up{job="b"}',), 0, MINUTE)) == ["2"]
    assert data(LabelValuesQuery("instance", ("requests_total",), 0, MINUTE)) == []
    assert data(LabelValuesQuery("nothing", (), 0, MINUTE)) == []
    limited = answer(LabelValuesQuery("job", (), 0, MINUTE, limit=1))
    assert (limited["data"], limited["warnings"]) == (["a"], [TRUNCATED])


def wide(series: int) -> MemorySource:
    return MemorySource.of([({"__name__": "m", "id": f"{i:0100}"}, [0], [1.0]) for i in range(series)])


@pytest.mark.parametrize(
    ("query", "answered"),
    [
        (SeriesQuery(("m",), 0, 1), True),
        (LabelValuesQuery("id", (), 0, 1), False),
        (LabelNamesQuery((), 0, 1), False),
        (CardinalityQuery(), False),
        (FederateQuery(("m",), 0), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_asked_about_series_has_its_share_of_memory_and_no_more(query: Query, answered: bool) -> None:
    source = wide(1000)
    assert len(body(query, source))
    for limit in (1_000, 7_000):
        with pytest.raises(QueryFailed, match=rf"needs more than {limit} bytes of memory \(--query-max-bytes\)"):
            body(query, source, limits=Limits(bytes=limit))


def test_an_answer_that_is_too_long_is_refused_before_it_begins() -> None:
    source = MemorySource.of([({"__name__": "m" * 100, "id": str(i)}, [0], [1.0]) for i in range(1000)])
    job = Job(SeriesQuery(("{id!=''}",), 0, 1), Limits(bytes=100_000))
    response = execute(job, source, Budget(job.limits)).body
    with pytest.raises(QueryFailed, match="the answer has more than 100000 bytes"):
        b"".join(response)
    assert len(data(SeriesQuery(("{id!=''}",), 0, 1, limit=500), source)) == 500


# ---- syntax -------------------------------------------------------------------------------------------------------


def test_queries_are_formatted_and_parsed() -> None:
    assert data(FormatQuery("sum by(job)(up)")) == "sum by (job) (up)"
    assert data(ParseQuery("up"))["type"] == "vectorSelector"


# ---- cardinality --------------------------------------------------------------------------------------------------


def test_cardinality_counts_series_values_and_bytes() -> None:
    def counts(**values: int) -> list[dict[str, object]]:
        return [{"name": name, "value": value} for name, value in values.items()]

    assert data(CardinalityQuery(limit=3)) == {
        "headStats": {"numSeries": 4, "numLabelPairs": 8},
        "seriesCountByMetricName": counts(up=2, old=1, requests_total=1),
        "labelValueCountByLabelName": counts(__name__=3, job=3, instance=2),
        "memoryInBytesByLabelName": counts(__name__=21, job=4, instance=2),
        "seriesCountByLabelValuePair": counts(**{"__name__=up": 2, "job=a": 2, "__name__=old": 1}),
    }


def test_cardinality_of_nothing() -> None:
    counts = data(CardinalityQuery(), MemorySource.of([]))
    assert counts.pop("headStats") == {"numSeries": 0, "numLabelPairs": 0}
    assert set(map(tuple, counts.values())) == {()}


# ---- federation ---------------------------------------------------------------------------------------------------


def test_federation_shows_the_latest_samples_by_name() -> None:
    query = FederateQuery(
        ('up{job="a"}', "requests_total", '{job="a"}', "old"),
        time=MINUTE + 1,
        types=(("requests_total", "counter"), ("up", "gauge"), ("old", "gauge")),
        external_labels=(("cluster", "x"), ("job", "not this one")),
    )
    assert body(query).decode() == (
        "# TYPE requests_total counter\n"
        'requests_total{cluster="x",instance="",job="a"} 20 60000\n'
        "# TYPE up gauge\n"
        'up{cluster="x",instance="1",job="a"} 0 60000\n'
    )


def test_federation_gives_pushed_series_without_times_until_they_are_too_old() -> None:
    late, ahead, gone = 10 * MINUTE, 20 * MINUTE, np.concatenate([[1.0], stale_marker()])
    source = MemorySource.of(
        [
            ({"__name__": "up", "_id": "a"}, [MINUTE], [1]),
            ({"__name__": "up", "_id": "old"}, [MINUTE - 1], [2]),
            ({"__name__": "up", "_id": "ahead"}, [late, ahead], [2, 3]),
            ({"__name__": "up", "_id": "gone"}, [MINUTE, late], gone),
            ({"__name__": "up", "job": "scraped"}, [late], [4]),
            ({"__name__": "up", "job": "too old"}, [MINUTE], [5]),
        ]
    )
    query = FederateQuery(("up", '{_id="a"}'), time=11 * MINUTE, lookback=5 * MINUTE, pushed=PushedSeries("_id", late))
    assert body(query, source).decode().splitlines() == [
        "# TYPE up untyped",
        'up{_id="a",instance=""} 1',
        'up{_id="ahead",instance=""} 3',
        f'up{{instance="",job="scraped"}} 4 {late}',
    ]
    timed = replace(query, pushed=PushedSeries("_id", late, timestamps=True))
    assert f'up{{_id="ahead",instance=""}} 3 {ahead}' in body(timed, source).decode().splitlines()


def test_federation_spells_what_is_special() -> None:
    source = MemorySource.of(
        [
            ({"__name__": "m", "l": 'back\\slash "quote"\nline'}, [0], [np.inf]),
            ({"__name__": "my.metric", "a.b": "c", "instance": "i"}, [0], [np.nan]),
            ({"__name__": "gone"}, [-1, 0], np.concatenate([[1.0], stale_marker()])),
            ({"no": "name"}, [0], [1]),
        ]
    )
    query = FederateQuery(('{__name__=~".+"}', '{no="name"}'), time=0, types=(("m", "histogram"),), utf8=True)
    assert body(query, source).decode() == (
        "# TYPE m untyped\n"
        'm{instance="",l="back\\\\slash \\"quote\\"\\nline"} +Inf 0\n'
        '# TYPE "my.metric" untyped\n'
        '{"my.metric","a.b"="c",instance="i"} NaN 0\n'
    )


def test_federation_escapes_names_for_old_scrapers() -> None:
    source = MemorySource.of([({"__name__": "0 my.größe:sum", "a:b": "c", "1": "ü"}, [0], [1.0])])
    query = FederateQuery(('{__name__=~".+"}',), time=0, types=(("0 my.größe:sum", "gauge"),))
    assert body(query, source).decode() == (
        '# TYPE __my_gr__e:sum gauge\n__my_gr__e:sum{_="ü",a_b="c",instance=""} 1 0\n'
    )


def test_federation_of_nothing_is_empty() -> None:
    assert body(FederateQuery(("nothing",), time=0)) == b""


def test_federation_of_much_writes_each_type_once() -> None:
    many = MemorySource.of([({"__name__": f"m{i % 2}", "i": str(i)}, [0], [i]) for i in range(50_000)])
    lines = body(FederateQuery(('{__name__=~"m."}',), time=0), many).decode().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# TYPE m0 untyped", "# TYPE m1 untyped"]
    assert len(lines) == 50_002
