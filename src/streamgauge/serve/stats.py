"""What the HTTP side counts of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamgauge.stats import Reading

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


def http_readings(stats: HttpStats, servers: Sequence[HttpServer]) -> Iterator[Reading]:
    """The counts of HttpStats and of listeners."""
    closed = sum((server.closed for server in servers), Counter())
    connections = sum(server.connections for server in servers)
    yield Reading(
        "streamgauge_http_requests_total",
        "counter",
        "HTTP requests answered, by route and status.",
        {(route, str(status)): count for (route, status), count in stats.requests.items()},
        ("handler", "code"),
    )
    yield Reading(
        "streamgauge_http_request_seconds_total",
        "counter",
        "Seconds spent answering HTTP requests, by route.",
        {(route,): total for route, total in stats.seconds.items()},
        ("handler",),
    )
    yield Reading.of("streamgauge_http_connections", "gauge", "HTTP connections open.", connections)
    yield Reading(
        "streamgauge_http_connections_closed_total",
        "counter",
        "HTTP connections closed by a limit, by reason.",
        {(reason,): count for reason, count in closed.items()},
        ("reason",),
    )
