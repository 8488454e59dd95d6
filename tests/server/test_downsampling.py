"""Downsampling through a real server: what each way of reading gives of days past retention, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from streamgauge.store.ports import DAY_MS
from streamgauge.store.verify import check_folder
from streamgauge.testing.remote_read import HEADERS, query, request, samples_answer
from streamgauge.testing.requests import Series, snappy
from streamgauge.testing.server import ServerProcess, eventually, run_command
from streamgauge.wire.snappy import decompress

StartServer = Callable[..., ServerProcess]

NOW = int(time.time()) * 1000
MINUTE = 60_000
OLD = NOW // DAY_MS * DAY_MS - 20 * DAY_MS
"""The start of a day that is long past a retention of a day."""


def write(server: ServerProcess) -> None:
    """An hour of a counter, a sample a minute, twenty days ago, and a sample of now."""
    points = [(OLD + minute * MINUTE, 3.0 * minute) for minute in range(60)]
    assert server.write([Series({"__name__": "requests_total", "job": "a"}, points)]).status == 204
    assert server.write([Series({"__name__": "requests_total", "job": "b"}, [(NOW, 1.0)])]).status == 204


def test_every_way_of_reading_sees_the_aggregates(start_server: StartServer) -> None:
    first = start_server()
    write(first)
    assert first.stop() == 0
    server = start_server("--retention", "1d", "--downsampling", "5m:90d,1h:2y", data=first.data)
    eventually(lambda: server.metric("streamgauge_downsampling_runs_total") == 1)
    assert server.metric_sum("streamgauge_downsampled_blocks") == 1
    assert server.metric_sum("streamgauge_downsampled_bytes") > 0
    assert server.metric("streamgauge_expiry_failures_total") == 0

    end = OLD + 60 * MINUTE
    answer = server.get(
        "/api/v1/query_range",
        {
            "query": 'rate(requests_total{job="a"}[10m])',
            "start": f"{(OLD + 20 * MINUTE) / 1000}",
            "end": f"{end / 1000}",
            "step": "300",
        },
    ).json()
    rates = [float(value) for _, value in answer["data"]["result"][0]["values"]]
    np.testing.assert_allclose(rates, 3 / 60)
    (info,) = answer["infos"]
    assert "only aggregates over 5m are kept" in info

    recent = server.get("/api/v1/query", {"query": 'requests_total{job="b"}', "time": f"{NOW / 1000}"}).json()
    assert recent["data"]["result"][0]["value"][1] == "1"
    assert "infos" not in recent

    bounds = {"match[]": "requests_total", "start": f"{OLD / 1000}", "end": f"{end / 1000}"}
    assert [each["job"] for each in server.data_of("/api/v1/series", bounds)] == ["a"]
    body = snappy(request(query(OLD, end, ("job", "=", "a"))))
    ((read,),) = samples_answer(decompress(server.request("POST", "/api/v1/read", body, HEADERS).body, 1 << 20))
    values = np.array([bits for _, bits in read.samples], np.uint64).view(np.float64)
    assert [at for at, _ in read.samples] == [OLD + bucket * 5 * MINUTE - 1 for bucket in range(1, 13)]
    assert values.tolist() == [3.0 * (5 * bucket - 1) for bucket in range(1, 13)]

    shown = run_command("inspect", str(server.data)).stdout
    assert "(5m)" in shown
    late = server.write([Series({"__name__": "requests_total", "job": "a"}, [(OLD + 1, 1.0)])])
    assert late.status == 400
    assert "too_old" in late.text
    assert server.stop() == 0
    assert check_folder(server.data) == []
