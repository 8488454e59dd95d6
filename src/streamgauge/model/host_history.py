"""What is known of a host for each minute, where that comes from, and the ranges that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamgauge.errors import BadInput

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

QUANTILE = 0.99
LARGEST = 2.0**53
"""Beyond it nothing is counted that there is; sums of such numbers might be none."""


@dataclass(frozen=True, slots=True)
class HostSample:
    """A host over the time since the sample before. ts: Unix seconds. error_rate: percent of the requests."""

    ts: int
    requests_sec: float = 0.0
    p99_ms: float = 0.0
    error_rate: float = 0.0
    active_backends: int = 0


METRICS: Mapping[str, str] = {
    "requests_sec": "host_history_requests_sec",
    "p99_ms": "host_history_p99_ms",
    "error_rate": "host_history_error_rate",
    "active_backends": "host_history_active_backends",
}
"""The metric that holds each member of the samples. Its series have the label `host`."""

HELP: Mapping[str, str] = {
    "requests_sec": "Requests per second of a host over the last minute.",
    "p99_ms": "The 99th percentile of their latency, in milliseconds.",
    "error_rate": "How many percent of them failed.",
    "active_backends": "Programs that answer for the host.",
}


@dataclass(frozen=True, slots=True)
class Range:
    """How far back, and the time of which the first sample is given; both in ms."""

    length: int
    resolution: int
    label: str


RANGES: Mapping[str, Range] = {
    "30m": Range(30 * MINUTE_MS, MINUTE_MS, "30 minutes"),
    "1h": Range(HOUR_MS, MINUTE_MS, "1 hour"),
    "6h": Range(6 * HOUR_MS, 5 * MINUTE_MS, "6 hours"),
    "24h": Range(DAY_MS, 15 * MINUTE_MS, "24 hours"),
    "7d": Range(7 * DAY_MS, 2 * HOUR_MS, "7 days"),
    "30d": Range(30 * DAY_MS, 8 * HOUR_MS, "30 days"),
    "365d": Range(365 * DAY_MS, 4 * DAY_MS, "365 days"),
}
DEFAULT_RANGE = "1h"


def range_of(name: str) -> Range:
    """Raises BadInput for a name that no range has."""
    if name not in RANGES:
        raise BadInput("invalid range; use 30m, 1h, 6h, or 24h")
    return RANGES[name]


@dataclass(frozen=True, slots=True)
class HostSource:
    """How a program's metrics say what is to be known of hosts. The texts are PromQL, "" for what it does not tell.

    host: labels of which the first that a series has names the host. requests, errors: counters. latency: the buckets
    of a histogram, with their label `le`, of which 1 is `unit` ms. backends: gauges that count those alive; where they
    name no host, they are those of each host of their instance.
    """

    name: str
    host: tuple[str, ...]
    requests: str
    errors: str = ""
    latency: str = ""
    unit: float = 1000.0
    backends: str = ""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """interval: ms between two samples. by: labels besides `host` that samples keep. max_hosts: sampled at once."""

    interval: int
    sources: tuple[HostSource, ...]
    by: tuple[str, ...] = ()
    max_hosts: int = 1000
