"""The Prometheus API: what is asked of the workers for a request, and what is refused before."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from streamgauge.clock import ManualClock
from streamgauge.query.budget import Limits
from streamgauge.query.requests import (
    CardinalityQuery,
    FederateQuery,
    FormatQuery,
    InstantQuery,
    LabelNamesQuery,
    LabelValuesQuery,
    ParseQuery,
    PushedSeries,
    RangeQuery,
    SeriesQuery,
)
from streamgauge.serve.params import MAX_TIME, MIN_TIME
from streamgauge.serve.services import HttpOptions

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000_000
API = "/api/v1"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/query?query=up", InstantQuery("up", NOW)),
        ("/query?query=up&time=5.5&limit=3&lookback_delta=1m", InstantQuery("up", 5_500, 60_000, 3)),
        ("/query?query=up&time=", InstantQuery("up", NOW)),
        ("/query?query=a%2Bb+%22%C3%A9%22", InstantQuery('a+b "é"', NOW)),
        ("/query?query=&time=-1", InstantQuery("", -1_000)),
        ("/query_range?query=up&start=0&end=60&step=15", RangeQuery("up", 0, 60_000, 15_000)),
        ("/query_range?query=up&start=60&end=60&step=1m", RangeQuery("up", 60_000, 60_000, 60_000)),
        ("/query_range?query=up&start=0&end=11000&step=1", RangeQuery("up", 0, 11_000_000, 1_000)),
        ("/series?match[]=up&match[]=down", SeriesQuery(("up", "down"), MIN_TIME, MAX_TIME)),
        ("/series?match%5B%5D=up&start=1&end=2&limit=9", SeriesQuery(("up",), 1_000, 2_000, 9)),
        ("/labels", LabelNamesQuery((), MIN_TIME, MAX_TIME)),
        ("/label/job/values?match[]=up", LabelValuesQuery("job", ("up",), MIN_TIME, MAX_TIME)),
        ("/label/U__http_2e_status/values", LabelValuesQuery("http.status", (), MIN_TIME, MAX_TIME)),
        ("/label/h%C3%A9/values", LabelValuesQuery("hé", (), MIN_TIME, MAX_TIME)),
        ("/format_query?query=up", FormatQuery("up")),
        ("/parse_query?query=up", ParseQuery("up")),
        ("/status/tsdb", CardinalityQuery(10)),
        ("/status/tsdb?limit=3", CardinalityQuery(3)),
    ],
)
async def test_what_is_asked_of_the_workers(served, path: str, query: object):
    response = await served.http.get(API + path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"status": "success", "data": repr(query)}
    assert [job.query for job in served.services.workers.jobs] == [query]


@pytest.mark.parametrize("path", ["query", "query_range", "series", "labels", "format_query", "parse_query"])
async def test_a_form_asks_the_same_as_a_query_string(served, path: str):
    params = {"query": "up", "match[]": ["a", "b"], "start": "1", "end": "2", "step": "1", "time": "7", "limit": "4"}
    await served.http.get(f"{API}/{path}", params=params)
    await served.http.post(f"{API}/{path}", data=params)
    by_get, by_post = served.services.workers.jobs
    assert by_get == by_post


async def test_a_form_s_value_goes_before_the_query_string_s(served):
    await served.http.post(f"{API}/series?match[]=c&limit=1", data={"match[]": ["a", "b"], "limit": "2"})
    assert served.services.workers.jobs[0].query == SeriesQuery(("a", "b", "c"), MIN_TIME, MAX_TIME, 2)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/query?query=up&time=x", 'invalid parameter "time": cannot parse "x" to a valid timestamp'),
        ("/query?query=up&time=9223372036854775807", "to a valid timestamp"),
        ("/query?query=up&timeout=x", 'invalid parameter "timeout": cannot parse "x" to a valid duration'),
        ("/query?query=up&timeout=-1", 'invalid parameter "timeout"'),
        ("/query?query=up&limit=x", 'invalid parameter "limit"'),
        ("/query?query=up&limit=-1", "limit must be non-negative"),
        ("/query?query=up&lookback_delta=x", 'invalid parameter "lookback_delta"'),
        ("/query_range?query=up&end=1&step=1", 'invalid parameter "start": cannot parse "" to a valid timestamp'),
        ("/query_range?query=up&start=1&step=1", 'invalid parameter "end"'),
        ("/query_range?query=up&start=1&end=2", 'invalid parameter "step": cannot parse "" to a valid duration'),
        ("/query_range?query=up&start=2&end=1&step=1", "end timestamp must not be before start"),
        ("/query_range?query=up&start=1&end=2&step=0", 'invalid parameter "step"'),
        ("/query_range?query=up&start=1&end=2&step=-1", 'invalid parameter "step"'),
        ("/query_range?query=up&start=1&end=2&step=0.0001", 'invalid parameter "step"'),
        ("/query_range?query=up&start=0&end=31536000&step=1", "maximum resolution of 11,000 points per timeseries"),
        ("/query_range?query=up&start=0&end=11001&step=1", "maximum resolution of 11,000 points per timeseries"),
        ("/series", "no match[] parameter provided"),
        ("/series?match[]=up&start=2&end=1", "end timestamp must not be before start"),
        ("/labels?start=x", 'invalid parameter "start"'),
        ("/label/job/values?limit=1.5", 'invalid parameter "limit"'),
        ("/metadata?limit=x", "limit must be a number"),
        ("/metadata?limit_per_metric=x", "limit_per_metric must be a number"),
        ("/query_exemplars?query=up&start=2&end=1", "end timestamp must not be before start"),
        ("/status/tsdb?limit=0", "from 1 to 10000"),
        ("/status/tsdb?limit=10001", "from 1 to 10000"),
        ("/query?query=%FF", "not UTF-8"),
    ],
)
async def test_what_is_refused_before_it_reaches_a_worker(served, assert_error, path: str, part: str):
    assert_error(await served.http.get(API + path), 400, "bad_data", part)
    assert served.services.workers.jobs == []


async def test_a_query_of_a_megabyte_is_refused(served, assert_error):
    response = await served.http.post(f"{API}/query", data={"query": "1+" * 500_000 + "1"})
    assert_error(response, 413, "bad_data", "larger than 1048576 bytes")


async def test_a_form_of_too_many_parameters_is_refused(served, assert_error):
    response = await served.http.post(f"{API}/series", data={"match[]": ["up"] * 10_001})
    assert_error(response, 400, "bad_data", "at most 10000 parameters")


async def test_a_body_that_is_no_form_is_refused(served, assert_error):
    assert_error(await served.http.post(f"{API}/query", json={"query": "up"}), 415, "bad_data", '"application/json"')


async def test_a_timeout_shortens_the_query_s_time_and_never_lengthens_it(serve):
    served = await serve(HttpOptions(limits=Limits(seconds=30.0)))
    for timeout in ("5s", "0.5", "1h"):
        await served.http.get(f"{API}/query", params={"query": "up", "timeout": timeout})
    assert [job.limits.seconds for job in served.services.workers.jobs] == [5.0, 0.5, 30.0]


async def test_statistics_and_the_content_coding_are_passed_on(served):
    headers = {"accept-encoding": "gzip"}
    await served.http.get(f"{API}/query?query=up&stats=all", headers=headers)
    await served.http.get(f"{API}/labels", headers={"accept-encoding": "identity"})
    assert [(job.stats, job.encoding) for job in served.services.workers.jobs] == [(True, "gzip"), (False, "identity")]


async def test_an_error_of_the_query_is_passed_on(served, assert_error):
    assert_error(await served.http.get(f"{API}/query?query=fails"), 422, "execution", "many-to-many")


async def test_too_many_queries_is_503_with_the_time_to_wait(served, assert_error):
    response = await served.http.get(f"{API}/query?query=too+many")
    assert_error(response, 503, "unavailable", "20 queries wait")
    assert response.headers["retry-after"] == "3"


async def test_a_worker_that_dies_in_the_middle_breaks_the_answer_off(served):
    with pytest.raises(httpx.TransportError):
        await served.http.get(f"{API}/query?query=dies")


@pytest.mark.parametrize("query", ["waits", "streams"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_that_goes_away_stops_its_query(served, connect, query: str, method: str):
    client = await connect(served.server)
    form = f"query={query}"
    await client.send(
        f"{method} {API}/query?{form if method == 'GET' else ''} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\n".encode()
        + (f"Content-Length: {len(form)}\r\n\r\n{form}".encode() if method == "POST" else b"\r\n")
    )
    workers = served.services.workers
    await asyncio.wait_for(workers.started.wait(), 20)
    assert not workers.stopped.is_set()
    client.abort()
    await asyncio.wait_for(workers.stopped.wait(), 20)


async def test_stopping_the_server_stops_its_queries(served, connect):
    client = await connect(served.server)
    await client.send(f"GET {API}/query?query=waits HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await asyncio.wait_for(served.services.workers.started.wait(), 20)
    await asyncio.wait_for(served.server.stop(0), 20)
    assert served.services.workers.stopped.is_set()


async def test_a_head_request_has_the_headers_and_no_body(served):
    response = await served.http.head(f"{API}/query?query=up")
    assert (response.status_code, response.content) == (200, b"")


# ---- what the server answers itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "counts"),
    [
        ({}, {"up": 1, "http_requests_total": 2}),
        ({"limit": "1"}, {"up": 1}),
        ({"limit": "0"}, {}),
        ({"limit_per_metric": "1"}, {"up": 1, "http_requests_total": 1}),
        ({"metric": "http_requests_total"}, {"http_requests_total": 2}),
        ({"metric": "unknown"}, {}),
    ],
)
async def test_metadata(served, params: dict[str, str], counts: dict[str, int]):
    data = (await served.http.get(f"{API}/metadata", params=params)).json()["data"]
    assert {name: len(entries) for name, entries in data.items()} == counts
    if "up" in data:
        assert data["up"] == [{"type": "gauge", "help": "Whether it is up.", "unit": ""}]


async def test_federation(serve, clock: ManualClock):
    served = await serve(HttpOptions(lookback=60_000, external_labels=(("region", "eu"),)))
    response = await served.http.get("/federate", params={"match[]": ["up", '{job="x"}']})
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    query = served.services.workers.jobs[0].query
    assert isinstance(query, FederateQuery)
    assert (query.matches, query.time, query.lookback) == (("up", '{job="x"}'), clock.now_ms(), 60_000)
    assert query.external_labels == (("region", "eu"),)
    assert ("up", "gauge") in query.types


async def test_federation_of_what_is_pushed(serve, assert_error):
    served = await serve(HttpOptions(pushed=PushedSeries("_id", 600_000)))
    for text, timestamps in (("", False), ("false", False), ("true", True), ("1", True)):
        await served.http.get("/federate", params={"match[]": "up", "timestamps": text})
        assert served.services.workers.jobs[-1].query.pushed == PushedSeries("_id", 600_000, timestamps)
    response = await served.http.get("/federate", params={"match[]": "up", "timestamps": "maybe"})
    assert response.status_code == 400


async def test_federation_of_nothing_is_empty(served):
    response = await served.http.get("/federate")
    assert (response.status_code, response.content) == (200, b"")
    assert served.services.workers.jobs == []


async def test_exemplars_are_none(served):
    assert (await served.http.get(f"{API}/query_exemplars?query=up")).json() == {"status": "success", "data": []}
