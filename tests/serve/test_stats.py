"""The HTTP side's own metrics."""

from __future__ import annotations

import pytest

from streamgauge.serve.stats import http_readings
from streamgauge.stats import Stats

pytestmark = pytest.mark.anyio


async def test_requests_connections_and_what_limits_closed_are_exposed(served, connect):
    await served.http.get("/api/v1/labels")
    await served.http.get("/api/v1/query?time=x")
    await (await connect(served.server)).send(b"nonsense\r\n\r\n")
    stats = Stats()
    stats.watch(lambda: http_readings(served.stats, [served.server]))
    lines = stats.exposition().decode().splitlines()
    assert 'streamgauge_http_requests_total{code="200",handler="/api/v1/labels"} 1.0' in lines
    assert 'streamgauge_http_requests_total{code="400",handler="/api/v1/query"} 1.0' in lines
    assert 'streamgauge_http_request_seconds_total{handler="/api/v1/labels"} 0.0' in lines
    assert 'streamgauge_http_connections_closed_total{reason="malformed"} 1.0' in lines
    assert any(line.startswith("streamgauge_http_connections ") for line in lines)
