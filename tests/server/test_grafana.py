"""A session as Grafana has it: what its Prometheus data source asks, in its way, dozens of things at a time."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from streamgauge.testing.requests import V2, Series
from streamgauge.testing.server import SECONDS, ServerProcess

NOW = int(time.time() * 1000)
START, END = NOW / 1000 - 3600, NOW / 1000
STEP = 15
INSTANCES, CODES = 20, ("200", "404", "500")
ENDLESS = " + ".join(["max_over_time(quantile_over_time(0.5, http_requests_total[1h])[1h:300ms])"] * 30)
"""A minute of work and more, within the budget of samples."""


@pytest.fixture(scope="module", autouse=True)
def dashboard_data(server: ServerProcess) -> None:
    for code_number, code in enumerate(CODES):
        series = []
        for i in range(INSTANCES):
            labels = {"__name__": "http_requests_total", "instance": f"host-{i}:80", "job": "web", "code": code}
            samples = [
                (NOW - 1000 * age + i * 37, float((3600 - age) * (i + 1) * (code_number + 1)))
                for age in range(3600, -1, -STEP)
            ]
            series.append(Series(labels, samples, metadata=("counter", "Requests.", "")))
        assert server.write(series, V2).status == 204


def panels() -> list[str]:
    rates = [f'sum by (code) (rate(http_requests_total{{instance="host-{i}:80"}}[5m]))' for i in range(INSTANCES)]
    others = [
        "sum(rate(http_requests_total[5m]))",
        'sum(rate(http_requests_total{code=~"5.."}[5m])) / sum(rate(http_requests_total[5m]))',
        "topk(5, sum by (instance) (increase(http_requests_total[1h])))",
        "histogram_quantile(0.9, sum by (le) (rate(http_requests_total[5m])))",
        "max_over_time(sum(rate(http_requests_total[1m]))[10m:30s])",
        "count(http_requests_total) by (job)",
        "avg_over_time(http_requests_total[5m]) > 1000",
        'label_replace(http_requests_total, "host", "$1", "instance", "(.*):.*")',
        "vector(1)",
        "absent(no_such_metric)",
    ]
    return rates + others


def test_the_health_check(server: ServerProcess) -> None:
    build = server.data_of("/api/v1/status/buildinfo")
    assert build["version"].startswith("3.")
    assert "features" not in build  # Grafana would take the server for Mimir
    assert server.query("1+1") == [pytest.approx(time.time(), abs=SECONDS), "2"]
    assert server.get("/api/v1/query", {"query": "1+1", "time": "4"}).json() == {
        "status": "success",
        "data": {"resultType": "scalar", "result": [4, "2"]},
    }


def test_variables_and_the_metric_browser(server: ServerProcess) -> None:
    span = {"start": str(START), "end": str(END)}
    selector = {"match[]": 'http_requests_total{job="web"}', **span}
    assert {"__name__", "code", "instance", "job"} == set(server.data_of("/api/v1/labels", selector))
    assert set(server.data_of("/api/v1/labels", span)) >= {"__name__", "code", "instance", "job"}
    names = server.get("/api/v1/label/__name__/values", span).json()["data"]
    assert "http_requests_total" in names
    assert names == sorted(names)
    values = server.get("/api/v1/label/instance/values", selector).json()["data"]
    assert sorted(values) == sorted(f"host-{i}:80" for i in range(INSTANCES))
    limited = server.get("/api/v1/label/instance/values", {**selector, "limit": "3"}).json()
    assert len(limited["data"]) == 3
    assert limited["warnings"]
    found = server.data_of("/api/v1/series", {"match[]": ["http_requests_total", "no_such_metric"], **span})
    assert len(found) == INSTANCES * len(CODES)
    assert found[0].keys() == {"__name__", "code", "instance", "job"}
    assert server.get("/api/v1/metadata").json()["data"]["http_requests_total"][0]["type"] == "counter"
    for path in ("rules", "alerts", "targets", "status/flags", "status/config", "status/runtimeinfo", "status/tsdb"):
        assert server.get(f"/api/v1/{path}").json()["status"] == "success", path
    exemplars = server.data_of("/api/v1/query_exemplars", {"query": "http_requests_total", **span})
    assert exemplars == []


def test_a_dashboard_asks_for_all_panels_at_once(server: ServerProcess) -> None:
    """Ninety, for three people open it. None may be refused: Grafana would show an error in its place."""

    def ask(expression: str) -> tuple[int, object]:
        form = {"query": expression, "start": f"{START:.3f}", "end": f"{END:.3f}", "step": str(STEP)}
        answer = server.post("/api/v1/query_range", form)
        return answer.status, answer.json()

    alone = {expression: ask(expression) for expression in panels()}
    assert {status for status, _ in alone.values()} == {200}
    thrice = panels() * 3
    together = threading.Barrier(len(thrice), timeout=SECONDS)

    def ask_together(expression: str) -> tuple[int, object]:
        together.wait()
        return ask(expression)

    with ThreadPoolExecutor(len(thrice)) as grafana:
        assert list(grafana.map(ask_together, thrice)) == [alone[expression] for expression in thrice]
    rates = alone['sum by (code) (rate(http_requests_total{instance="host-3:80"}[5m]))'][1]["data"]["result"]  # type: ignore[index]
    assert {series["metric"]["code"]: float(series["values"][-1][1]) for series in rates} == pytest.approx(
        {"200": 4.0, "404": 8.0, "500": 12.0}
    )
    assert len(rates[0]["values"]) == 3600 // STEP - 1  # a rate needs two samples


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity", "gzip, deflate, br, zstd", "br"])
def test_compressed_answers(server: ServerProcess, encoding: str) -> None:
    parameters = {"query": "http_requests_total", "start": str(START), "end": str(END), "step": "15"}
    plain = server.get("/api/v1/query_range", parameters).json()
    answer = server.get("/api/v1/query_range", parameters, {"accept-encoding": encoding})
    used = answer.headers.get("content-encoding", "identity")
    assert used == {"br": "identity", "gzip, deflate, br, zstd": "zstd"}.get(encoding, encoding)
    assert "accept-encoding" in answer.headers["vary"].lower()
    body = answer.body
    if used == "gzip":
        body = gzip.decompress(body)
    elif used == "zstd":
        with pa.input_stream(pa.BufferReader(body), compression="zstd") as stream:
            body = stream.read()
    assert json.loads(body) == plain
    assert used == "identity" or len(answer.body) < len(body) / 4


def test_one_connection_serves_a_whole_session(server: ServerProcess) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    connection.connect()
    first = connection.sock
    for expression in panels():
        query = urllib.parse.urlencode({"query": expression})
        connection.request("GET", f"/api/v1/query?{query}", headers={"accept-encoding": "gzip"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert connection.sock is first
    connection.close()


# ---- queries that run ---------------------------------------------------------------------------------------------


def start_query(server: ServerProcess, expression: str) -> socket.socket:
    connection = server.connect()
    query = urllib.parse.urlencode({"query": expression, "time": str(END)})
    connection.sendall(f"GET /api/v1/query?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def running(server: ServerProcess) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = server.data_of("/api/v1/status/queries")["queries"]
    return listed


def await_running(
    server: ServerProcess, condition: Callable[[list[dict[str, object]]], bool]
) -> list[dict[str, object]]:
    """The list of queries, as soon as it is as wanted."""
    deadline = time.monotonic() + SECONDS
    while not condition(listed := running(server)):
        assert time.monotonic() < deadline, listed
    return listed


@pytest.fixture
def many(start_server: Callable[..., ServerProcess]) -> Iterator[ServerProcess]:
    """A server in which one query may wait."""
    server = start_server("--query-concurrency", "1", "--query-queue", "1")
    samples = [(NOW - 1000 * age, float(age)) for age in range(600)]
    server.write([Series({"__name__": "http_requests_total", "i": str(i)}, samples) for i in range(100)])
    yield server
    assert server.stop() == 0, "".join(server.output)


def test_closing_the_connection_cancels_the_query(server: ServerProcess) -> None:
    before = server.metric("streamgauge_query_canceled_total")
    connection = start_query(server, ENDLESS)
    (listed,) = await_running(server, lambda queries: len(queries) == 1)
    assert ENDLESS.startswith(listed["query"].removesuffix("…"))
    connection.close()
    await_running(server, lambda queries: not queries)
    assert server.metric("streamgauge_query_canceled_total") == before + 1


def test_cancelling_a_query_by_its_number(server: ServerProcess) -> None:
    with start_query(server, ENDLESS) as connection:
        (listed,) = await_running(server, lambda queries: len(queries) == 1)
        answer = server.request("POST", f"/api/v1/admin/queries/{listed['id']}/cancel")
        assert answer.json() == {"status": "success", "data": {"cancelled": listed["id"]}}
        received = b""
        while b"}" not in received:
            received += connection.recv(65_536)
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b'"canceled"' in received
    await_running(server, lambda queries: not queries)
    assert server.request("POST", f"/api/v1/admin/queries/{listed['id']}/cancel").status == 404
    assert server.request("DELETE", "/api/v1/admin/queries/nonsense/cancel").status == 404


def test_overload_is_answered_with_503_and_small_queries_go_on(many: ServerProcess) -> None:
    connections = fill(many)
    try:
        refused = many.get("/api/v1/query_range", {"query": ENDLESS, "start": "0", "end": "1", "step": "1"})
        assert refused.status == 503
        assert refused.json() | {"error": ""} == {"status": "error", "errorType": "unavailable", "error": ""}
        assert int(refused.headers["retry-after"]) > 0
        assert many.metric("streamgauge_query_refused_total") == 1
        assert many.metric("streamgauge_query_waiting") == 1
        # Writing goes on, too.
        assert many.write([Series({"__name__": "meanwhile"}, [(NOW, 1.0)])]).status == 204
    finally:
        for connection in connections:
            connection.close()
    await_running(many, lambda queries: not queries)
    assert len(many.data_of("/api/v1/labels")) >= 2
    assert many.query("meanwhile", END)[0]["value"][1] == "1"


def test_a_query_that_waits_leaves_when_its_client_does_or_somebody_cancels_it(many: ServerProcess) -> None:
    connections = fill(many)
    connections.pop().close()
    await_running(many, lambda queries: [query["state"] for query in queries] == ["running"] * 2)
    connections.append(start_query(many, ENDLESS))
    (waiting,) = await_running(many, is_full)[2:]
    assert waiting["worker"] is None
    many.request("POST", f"/api/v1/admin/queries/{waiting['id']}/cancel")
    assert connections[-1].recv(65_536).startswith(b"HTTP/1.1 503 ")
    await_running(many, lambda queries: [query["state"] for query in queries] == ["running"] * 2)
    assert many.metric("streamgauge_query_waiting") == 0
    for connection in connections:
        connection.close()


def fill(server: ServerProcess) -> list[socket.socket]:
    """Keep a server's two workers busy, and let one more query wait."""
    connections: list[socket.socket] = []
    for count in (1, 2, 3):
        connections.append(start_query(server, ENDLESS))
        await_running(server, lambda queries, count=count: len(queries) == count)  # type: ignore[misc]
    await_running(server, is_full)
    return connections


def is_full(queries: list[dict[str, object]]) -> bool:
    return [query["state"] for query in queries] == ["running", "running", "waiting"]
