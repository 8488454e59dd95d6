"""What the HTTP side counts of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from streamgauge.serve.server import HttpServer


@dataclass(slots=True)
class HttpStats:
    """Requests by route and status. A route is the pattern, not the path, so that their number is bounded."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)  # until the last byte of the answer was handed over

    def observe(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.seconds[route] = self.seconds.get(route, 0.0) + seconds


class HttpCollector(Collector):
    """The counts of HttpStats and of a listener as metric families."""

    def __init__(self, stats: HttpStats, server: HttpServer) -> None:
        self._stats = stats
        self._server = server

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "streamgauge_http_requests", "HTTP requests answered, by route and status.", labels=["handler", "code"]
        )
        for (route, status), count in self._stats.requests.items():
            requests.add_metric([route, str(status)], count)
        yield requests
        seconds = CounterMetricFamily(
            "streamgauge_http_request_seconds", "Seconds spent answering HTTP requests, by route.", labels=["handler"]
        )
        for route, total in self._stats.seconds.items():
            seconds.add_metric([route], total)
        yield seconds
        yield GaugeMetricFamily(
            "streamgauge_http_connections", "HTTP connections open.", value=self._server.connections
        )
        closed = CounterMetricFamily(
            "streamgauge_http_connections_closed", "HTTP connections closed by a limit, by reason.", labels=["reason"]
        )
        for reason, count in self._server.closed.items():
            closed.add_metric([reason], count)
        yield closed
