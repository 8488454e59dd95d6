"""One scrape configuration: everything about a job that does not come from discovery. Compared on a reload."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamgauge.http.options import HttpOptions
from streamgauge.ingest.discovery.groups import Group
from streamgauge.relabel import Rule

TEXT_0_0_4 = "PrometheusText0.0.4"
TEXT_1_0_0 = "PrometheusText1.0.0"
OPENMETRICS_0_0_1 = "OpenMetricsText0.0.1"
OPENMETRICS_1_0_0 = "OpenMetricsText1.0.0"
PROTOBUF = "PrometheusProto"

TEXTS = (TEXT_1_0_0, TEXT_0_0_4)
DEFAULT_PROTOCOLS = (OPENMETRICS_1_0_0, OPENMETRICS_0_0_1, TEXT_1_0_0, TEXT_0_0_4)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one scrape; 0 is none. body: bytes, inflated. label_name and label_value: bytes."""

    body: int = 0
    samples: int = 0
    labels: int = 0
    label_name: int = 0
    label_value: int = 0


@dataclass(frozen=True, slots=True)
class FileSource:
    files: tuple[str, ...]  # patterns
    interval: int  # ms


@dataclass(frozen=True, slots=True)
class HttpSource:
    url: str
    interval: int  # ms
    http: HttpOptions = field(default_factory=HttpOptions)


@dataclass(frozen=True, slots=True)
class DnsSource:
    names: tuple[str, ...]
    type: str  # A, AAAA, SRV or MX
    port: int
    interval: int  # ms


Source = FileSource | HttpSource | DnsSource


SCHEMES = ("http", "https")
GRPC_SCHEMES = ("grpc", "grpcs")
"""Of targets that are data readers: without and with TLS."""


@dataclass(frozen=True, slots=True)
class ScrapeJob:
    """interval, timeout: ms. target_limit, keep_dropped: targets; 0 is no limit."""

    name: str
    interval: int = 60_000
    timeout: int = 10_000
    over_grpc: bool = False
    """A data reader is polled, and not text scraped: at the boundaries of its interval, and no two at other times."""
    metrics_path: str = "/metrics"
    scheme: str = "http"
    params: tuple[tuple[str, tuple[str, ...]], ...] = ()
    honor_labels: bool = False
    honor_timestamps: bool = True
    track_timestamps_staleness: bool = False
    compression: bool = True
    protocols: tuple[str, ...] = DEFAULT_PROTOCOLS
    fallback_protocol: str = ""
    extra_metrics: bool = False
    escaping: str = "allow-utf-8"
    limits: Limits = Limits()
    target_limit: int = 0
    keep_dropped: int = 0
    http: HttpOptions = field(default_factory=HttpOptions)
    relabel: tuple[Rule, ...] = ()
    metric_relabel: tuple[Rule, ...] = ()
    static: tuple[Group, ...] = ()
    sources: tuple[Source, ...] = ()
