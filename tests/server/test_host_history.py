"""From an application's requests to the history of its hosts, through the real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from streamgauge.client import HostCounters, HostPusher
from streamgauge.testing.server import eventually

CONFIG = """\
host_history:
  interval: 1s
"""


def test_what_an_application_pushes_becomes_a_history_that_survives_a_restart(start_server, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("streamgauge: {}\n")
    server = start_server("--config", str(config))
    config.write_text(CONFIG)
    assert server.post("/-/reload").status == 200
    counters = HostCounters(bounds=(0.1, 1.0))

    def samples(running):
        asked = {"host": "shop.example", "start": f"{time.time() - 600}", "step": "1s"}
        answer = running.get("/telemetry/history", asked)
        assert answer.headers["content-type"] == "application/json"
        return answer.json()["samples"]

    with HostPusher(server.url, counters, interval=3600) as pusher:

        def busy() -> bool:
            for status in (200, 200, 200, 503):
                counters.observe(b"shop.example", status, 0.05)
            assert pusher.push(), pusher.pushes().error
            return any(sample["requests_sec"] > 0 for sample in samples(server))

        eventually(busy)
    assert server.get("/telemetry/hosts").json() == {"hosts": ["shop.example"]}
    found = samples(server)
    sample = next(sample for sample in found if sample["requests_sec"])
    assert sample["error_rate"] == pytest.approx(25)
    assert sample["p99_ms"] == pytest.approx(99)
    assert sample["active_backends"] == 1
    assert server.query('host_history_error_rate{host="shop.example"}')
    server.stop()
    again = start_server("--config", str(config), data=server.data)
    assert samples(again)[: len(found)] == found
    assert not [line for line in again.output if "WARNING" in line]
