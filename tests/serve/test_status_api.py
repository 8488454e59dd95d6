from __future__ import annotations

import gzip

import pytest

from streamgauge import __version__
from streamgauge.query.requests import GroupBy, GrowthQuery, Order
from streamgauge.serve.services import Replay
from streamgauge.serve.status_api import rfc3339

pytestmark = pytest.mark.anyio

FORM = "application/x-www-form-urlencoded"


async def data(served, path: str) -> object:
    response = await served.http.get(f"/api/v1/{path}")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "success"
    return body["data"]


@pytest.mark.parametrize(
    ("path", "empty"),
    [
        ("rules", {"groups": []}),
        ("alerts", {"alerts": []}),
        ("alertmanagers", {"activeAlertmanagers": [], "droppedAlertmanagers": []}),
        ("notifications", []),
    ],
)
async def test_what_has_nothing_to_tell_yet_is_empty(served, path: str, empty: object):
    assert await data(served, path) == empty


async def test_buildinfo_is_that_of_a_prometheus_3_and_names_us(served):
    info = await data(served, "status/buildinfo")
    assert info["version"].startswith("3.")
    assert (info["product"], info["productVersion"]) == ("streamgauge", __version__)
    # Grafana takes a server with this key for Mimir.
    assert "features" not in info


async def test_runtimeinfo(served, clock):
    info = await data(served, "status/runtimeinfo")
    assert info["startTime"] == rfc3339(clock.now_ms() - 60_000)
    assert info["serverTime"] == "2023-11-14T22:13:20.000Z"
    assert info["storageRetention"] == "15d"
    served.services.retention_bytes = 10 << 30
    assert (await data(served, "status/runtimeinfo"))["storageRetention"] == "15d or 10GB"
    assert (info["headSeries"], info["samplesAppended"], info["corruptionCount"]) == (12, 3_456, 1)
    assert info["lastEventTime"] is None
    served.services.last_event = 1_700_000_000_000
    assert (await data(served, "status/runtimeinfo"))["lastEventTime"] == "2023-11-14T22:13:20.000Z"
    assert info["reloadConfigSuccess"] is True


async def test_config_and_flags(served):
    assert await data(served, "status/config") == {"yaml": "global: {}\n"}
    assert await data(served, "status/flags") == {"listen": "127.0.0.1:4318"}


async def test_the_replay_can_be_watched_while_it_runs(served):
    served.services.state = Replay(3, 4, False)
    assert await data(served, "status/walreplay") == {"min": 0, "max": 4, "current": 3, "state": "in progress"}


async def test_running_queries_can_be_listed_and_cancelled(served, assert_error):
    (query,) = (await data(served, "status/queries"))["queries"]
    assert query == {"id": 7, "query": "up", "started": rfc3339(1_700_000_000_000), "state": "running", "worker": 4711}
    for method in ("POST", "DELETE"):
        response = await served.http.request(method, "/api/v1/admin/queries/7/cancel")
        assert response.json() == {"status": "success", "data": {"cancelled": 7}}
    for unknown in ("8", "x", "-1", "9" * 50, "²"):
        response = await served.http.post(f"/api/v1/admin/queries/{unknown}/cancel")
        assert_error(response, 404, "not_found", "/api/v1/status/queries")


async def test_inspect(served):
    assert await data(served, "status/inspect") == {"blocks": [], "limit": 10}
    assert await data(served, "status/inspect?limit=3") == {"blocks": [], "limit": 3}


CARDINALITY = "/api/v1/status/cardinality"


async def test_cardinality_looks_back_an_hour_unless_told_otherwise(served, clock):
    await served.http.get(CARDINALITY)
    parameters = "match[]=up&match[]=down&by=job,metric,job&since=1d&end=60&idle=90&order=ended&buckets=48&limit=3"
    await served.http.post(CARDINALITY, content=parameters, headers={"content-type": FORM})
    await served.http.get(CARDINALITY, params={"by": "label"})
    await served.http.get(CARDINALITY, params={"by": "pair", "end": "-292273086-05-16T16:47:06Z"})
    plain, full, label, pair = (job.query for job in served.services.workers.jobs)
    now = clock.now_ms()
    assert plain == GrowthQuery((), now - 3_600_000, now, 300_000)
    names = ("job", "__name__")
    assert full == GrowthQuery(
        ("up", "down"), 60_000 - 86_400_000, 60_000, 90_000, GroupBy.VALUES, names, Order.ENDED, 48, 3
    )
    assert (label.by, label.names) == (GroupBy.LABEL, ())
    assert pair.by is GroupBy.PAIR
    assert pair.end - pair.start == 3_600_000, "also at the beginning of time"


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("by=", ""),
        ("by=,", "names no label"),
        ("by=job,,instance", "names no label"),
        ("by=" + ",".join(f"l{number}" for number in range(11)), "at most 10 labels"),
        ("since=0", "at least 1 ms"),
        ("since=-1h", "valid duration"),
        ("since=300y", "valid duration"),
        ("since=nan", "valid duration"),
        ("idle=0", "at least 1 ms"),
        ("end=soon", "valid timestamp"),
        ("end=1e300", "valid timestamp"),
        ("order=name", "not one of series, active, created, ended"),
        ("buckets=0", "from 1 to 240"),
        ("buckets=241", "from 1 to 240"),
        ("buckets=x", "whole number"),
        ("limit=0", "from 1 to 10000"),
        ("limit=10001", "from 1 to 10000"),
    ],
)
async def test_what_cardinality_cannot_be_asked(served, assert_error, parameter: str, words: str):
    response = await served.http.get(f"{CARDINALITY}?{parameter}")
    if words:
        assert_error(response, 400, "bad_data", words)
        assert served.services.workers.jobs == []
    else:
        assert response.status_code == 200


async def test_limits(served):
    assert await data(served, "status/limits") == {"max_series_per_metric": "10", "refused": []}


async def test_probes(served):
    assert (await served.http.get("/-/healthy")).status_code == 200
    assert (await served.http.get("/-/ready")).status_code == 200
    served.services.state = Replay(1, 4, False)
    assert (await served.http.get("/-/healthy")).status_code == 200
    response = await served.http.get("/-/ready")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "1 of 4" in response.text


async def test_reload(served):
    for method in ("POST", "PUT"):
        assert (await served.http.request(method, "/-/reload")).status_code == 200
    assert served.services.reloads == 2
    served.services.bad_config = 'config.yml:3: unknown key "golbal"; was "global" meant?'
    response = await served.http.post("/-/reload")
    assert response.status_code == 500
    assert "golbal" in response.text


async def test_own_metrics_compressed_where_taken(served, connect):
    response = await served.http.get("/metrics", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.text == served.services.metrics_text().decode()
    client = await connect(served.server)
    await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
    body = (await client.read_all()).partition(b"\r\n\r\n")[2]
    assert gzip.decompress(body) == served.services.metrics_text()
