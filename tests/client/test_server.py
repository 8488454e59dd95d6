"""The client and our own server: each event is stored exactly once, whatever happens to either."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamgauge.client import Handler, Undelivered, Writer
from streamgauge.testing.server import ServerProcess

NewWriter = Callable[..., Writer]
SCHEMES = pytest.mark.parametrize("scheme", ["ws", "http"])
SECONDS = 60.0


def url(server: ServerProcess, scheme: str) -> str:
    return f"{scheme}://127.0.0.1:{server.port}"


def select(server: ServerProcess, query: str) -> list[list[Any]]:
    headers = {"content-type": "application/sql", "accept": "application/json"}
    answer = server.request("POST", "/api/v1/sql", query.encode(), headers)
    assert answer.status == 200, answer.text
    rows: list[list[Any]] = answer.json()["data"]["rows"]
    return rows


@SCHEMES
def test_what_is_acknowledged_can_be_queried(tmp_path: Path, new_writer: NewWriter, scheme: str) -> None:
    with ServerProcess.start(tmp_path / "data", ["--no-self-monitoring"]) as server:
        writer = new_writer(url(server, scheme))
        logger = logging.Logger("shop.orders")
        logger.addHandler(Handler(writer, fields={"service": "shop"}))
        with writer.span("checkout", http={"status": 503}) as span:
            logger.error("no tea", extra={"user": 7})
        assert writer.flush(SECONDS)
        ids = span.context.trace_id, span.context.span_id
        logs = "SELECT severity, message, trace_id, span_id, payload.user, payload.service FROM logs"
        assert select(server, logs) == [["ERROR", "no tea", *ids, 7, "shop"]]
        spans = "SELECT name, trace_id, span_id, duration_ns > 0 FROM spans WHERE payload.http.status >= 500"
        assert select(server, spans) == [["checkout", *ids, True]]
        assert select(server, "SELECT stream_event_index FROM events ORDER BY 1") == [[1], [2]]


@SCHEMES
def test_a_server_killed_in_a_burst_has_each_event_once_in_one_stream(
    tmp_path: Path, new_writer: NewWriter, scheme: str
) -> None:
    server = ServerProcess.start(tmp_path / "data", ["--no-self-monitoring"])
    writer = new_writer(url(server, scheme))
    written = 0
    enough = threading.Event()

    def write() -> None:
        nonlocal written
        while not enough.is_set():
            assert writer.write({"n": written})
            written += 1
            while writer.counts().held > 5_000 and not enough.is_set():
                writer.flush(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(2):
            seen = writer.counts().acknowledged
            while writer.counts().acknowledged < seen + 500:
                writer.flush(0.01)
            server.kill()
            listen = ["--no-self-monitoring", "--listen", f"127.0.0.1:{server.port}"]
            server = ServerProcess.start(tmp_path / "data", listen)
    finally:
        enough.set()
        thread.join()
    with server:
        assert writer.close(SECONDS) == Undelivered()
        counts = "SELECT count(*), count(DISTINCT payload.n), max(payload.n), max(stream_event_index) FROM events"
        assert select(server, counts) == [[written, written, written - 1, written]]
        assert select(server, "SELECT count(*) FROM streams") == [[1]]


@SCHEMES
def test_an_event_that_is_too_large_for_the_server_stops_no_other(
    tmp_path: Path, new_writer: NewWriter, scheme: str
) -> None:
    limit = ["--no-self-monitoring", "--event-max-bytes", "10000"]
    with ServerProcess.start(tmp_path / "data", limit) as server:
        writer = new_writer(url(server, scheme))
        for n in range(100):
            writer.write({"n": n, "text": "x" * (20_000 if n == 50 else 10)})
        assert writer.flush(SECONDS)
        assert writer.counts().refused == 1
        assert select(server, "SELECT count(payload.n), sum(payload.lost) FROM events") == [[99, 1]]
