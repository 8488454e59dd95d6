"""A configured rule makes metrics of events that a real server is sent, through a reload and a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from streamgauge.testing.server import ServerProcess, eventually

StartServer = Callable[..., ServerProcess]

RULES = """\
event_metrics:
  - name: http_errors_total
    type: count
    where: [http.status>=500]
    labels: {route: http.route}
  - name: request_seconds
    type: histogram
    value: http.seconds
    buckets: [0.1, 1]
"""


def post(server: ServerProcess, *events: object) -> None:
    body = "".join(json.dumps(event) + "\n" for event in events).encode()
    assert server.request("POST", "/api/v1/events", body).text == str(len(events))


def request(status: int, seconds: float) -> dict[str, object]:
    return {"http": {"status": status, "route": "/cart", "seconds": seconds}}


def value(server: ServerProcess, expression: str) -> float | None:
    return server.value(expression, time.time() + 1)


def test_events_can_be_asked_for_as_metrics(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "streamgauge.yml"
    file.write_text(RULES)
    server = start_server("--config", str(file))
    post(server, request(500, 0.05), request(200, 0.5), request(503, 3), "no request")
    errors = 'http_errors_total{job="events",route="/cart",instance!=""}'
    eventually(lambda: value(server, errors) == 2)
    eventually(lambda: value(server, "request_seconds_count") == 3)
    assert value(server, "request_seconds_sum") == 3.55
    buckets = server.query("request_seconds_bucket", time.time() + 1)
    assert {each["metric"]["le"]: each["value"][1] for each in buckets} == {"0.1": "1", "1.0": "2", "+Inf": "3"}
    metadata = server.data_of("/api/v1/metadata")
    assert [metadata[name][0]["type"] for name in ("http_errors_total", "request_seconds")] == ["counter", "histogram"]

    file.write_text(RULES + "  - name: events_total\n    type: count\n")
    assert server.post("/-/reload").status == 200
    post(server, request(500, 1), {"a": 1})
    eventually(lambda: value(server, "events_total") == 2)
    eventually(lambda: value(server, errors) == 3)

    post(server, *(request(500, 1) for _ in range(4)))
    assert server.stop() == 0
    end = time.time()
    again = start_server("--config", str(file))
    assert max(float(number) for _, number in again.samples(errors, end)) == 7
    eventually(lambda: value(again, "request_seconds_count") == 0)


def test_events_of_any_shape_are_survived(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "streamgauge.yml"
    file.write_text(
        "event_metrics:\n- {name: n_total, type: sum, value: n, labels: {l: l}}\n- {name: all_total, type: count}\n"
    )
    server = start_server("--config", str(file))
    deep = "[" * 500 + "]" * 500
    values = ["9" * 5000, "1e999", deep, '"x"', "null", "{}", "3"]
    body = "".join(f'{{"n":{value},"l":{value}}}\n' for value in values)
    assert server.request("POST", "/api/v1/events", body.encode()).text == "7"
    eventually(lambda: value(server, "all_total") == 7)
    eventually(lambda: value(server, 'n_total{l="3"}') == 3)
    skipped = 'streamgauge_event_metric_skipped_total{metric="n_total",reason="no_number"}'
    assert server.metric(skipped) == 6
    assert server.stop() == 0
