"""What the federation client counts of itself. Names that telemeter-client has too mean the same here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamgauge import __version__
from streamgauge.federate.buffer import Buffer
from streamgauge.wire.metric_family import Labels, Metric, MetricFamily, MetricType

Values = Mapping[Labels, float]
Requests = Counter[tuple[str, str]]
"""By client, federate_from or federate_to, and status."""


@dataclass(slots=True)
class ClientMetrics:
    """scraped, removed: metrics of the last scrape. requests: cycles, and pushes that were tried again. unbuffered:
    batches that the disk did not take."""

    buffer: Buffer
    scraped: int = 0
    removed: int = 0
    requests: int = 0
    failed: int = 0
    pushed: int = 0
    unbuffered: int = 0
    reload_failures: int = 0
    http: Requests = field(default_factory=Counter)

    def families(self) -> list[MetricFamily]:
        """All of them, as they are now."""
        waiting = self.buffer.waiting
        answers: dict[Labels, float] = {
            (("client", client), ("status_code", code)): n for (client, code), n in self.http.items()
        }
        sent = {key: n for key, n in answers.items() if key[0][1] == "federate_to"}
        retrieved = {key: n for key, n in answers.items() if key[0][1] == "federate_from"}
        lost: dict[Labels, float] = {(("reason", reason),): n for reason, n in sorted(self.buffer.lost.items())}
        return [
            _gauge("federate_samples", "Metrics that the last scrape gave.", self.scraped),
            _gauge("federate_filtered_samples", "Metrics of the last scrape that were removed.", self.removed),
            _counter("federate_requests_total", "Cycles, and pushes that were tried again.", self.requests),
            _counter("federate_requests_failed_total", "Scrapes and pushes that failed.", self.failed),
            _family(
                "metricsclient_http_requests_total",
                "Answers to scrapes (federate_from) and to pushes (federate_to).",
                MetricType.COUNTER,
                answers,
            ),
            _family("metricsclient_request_retrieve", "Deprecated: answers to scrapes.", MetricType.GAUGE, retrieved),
            _family("metricsclient_request_send", "Deprecated: answers to pushes.", MetricType.GAUGE, sent),
            _gauge("federate_buffer_batches", "Batches that wait to be pushed.", len(waiting)),
            _gauge("federate_buffer_bytes", "Bytes of the buffer's files.", self.buffer.bytes),
            _gauge(
                "federate_buffer_oldest_timestamp_seconds",
                "Time of the newest sample of the batch that waits longest; 0 where none does.",
                waiting[0].about.newest / 1000 if waiting else 0,
            ),
            _counter("federate_pushed_samples_total", "Metrics that a server has confirmed.", self.pushed),
            _family(
                "federate_lost_samples_total",
                "Metrics given up before they were pushed: old, full, refused, damaged, replaced.",
                MetricType.COUNTER,
                lost,
            ),
            _counter("federate_buffer_write_failures_total", "Batches that the disk did not take.", self.unbuffered),
            _counter("federate_reload_failures_total", "Reloads that changed nothing.", self.reload_failures),
            _family(
                "streamgauge_build_info",
                "A constant 1; the label says what is running.",
                MetricType.GAUGE,
                {(("version", __version__),): 1},
            ),
        ]


def _gauge(name: str, text: str, value: float) -> MetricFamily:
    return _family(name, text, MetricType.GAUGE, {(): value})


def _counter(name: str, text: str, value: float) -> MetricFamily:
    return _family(name, text, MetricType.COUNTER, {(): value})


def _family(name: str, text: str, kind: MetricType, values: Values) -> MetricFamily:
    return MetricFamily(name, kind, tuple(Metric(key, kind, float(n)) for key, n in values.items()), text)
