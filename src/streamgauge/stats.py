"""What streamgauge counts of itself: every counter, gauge and histogram in one place, in a registry of its own.

The only module that knows the metrics library.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamgauge import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ENTERED_AT = 1000
"""Requests whose durations a tally keeps at most: 8 KiB."""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One of our metrics with its present samples: (name, labels, value)."""

    name: str
    type: str
    help: str
    samples: tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The present values of a metric that another part keeps. `type` is counter or gauge; the name of a counter ends in
    _total. `values` by label values, in the order of `labels`."""

    name: str
    type: str
    help: str
    values: Mapping[tuple[str, ...], float]
    labels: tuple[str, ...] = ()

    @staticmethod
    def of(name: str, type_: str, help_: str, value: float) -> Reading:
        """A reading without labels."""
        return Reading(name, type_, help_, {(): value})


class _Watched(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for reading in self._read():
            kind = CounterMetricFamily if reading.type == "counter" else GaugeMetricFamily
            family = kind(reading.name.removesuffix("_total"), reading.help, labels=reading.labels)
            for labels, value in reading.values.items():
                family.add_metric(labels, value)
            yield family


class Stats:
    """All metrics of one server. Updating one is safe from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._before: list[Callable[[], None]] = []
        ProcessCollector(registry=registry)
        build = Gauge(
            "streamgauge_build_info",
            "A constant 1; the labels say what is running.",
            ("version", "python"),
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)

        self.ingested_samples = Counter(
            "streamgauge_ingested_samples_total",
            "Samples stored, by the way they came in.",
            ("source",),
            registry=registry,
        )
        self.ingested_events = Counter(
            "streamgauge_ingested_events_total",
            "Events stored, by the way they came in.",
            ("source",),
            registry=registry,
        )
        self.ingested_event_bytes = Counter(
            "streamgauge_ingested_event_bytes_total",
            "Bytes of the events stored, as JSON, by the way they came in.",
            ("source",),
            registry=registry,
        )
        self.destination_events = Counter(
            "streamgauge_destination_events_total",
            "Events delivered to a destination.",
            ("destination",),
            registry=registry,
        )
        self.destination_failures = Counter(
            "streamgauge_destination_failures_total",
            "Attempts at which a destination did not take events; they are tried again.",
            ("destination",),
            registry=registry,
        )
        self.destination_left_out = Counter(
            "streamgauge_destination_left_out_total",
            "Events that a destination does not get: it cannot hold them, or they were removed before.",
            ("destination", "reason"),
            registry=registry,
        )
        self.event_streams = Gauge(
            "streamgauge_event_streams",
            "Requests and connections that bring events at this moment.",
            registry=registry,
        )
        self.refused = Counter(
            "streamgauge_refused_total",
            "Samples, and whatever else, not stored, by the way they came in and why.",
            ("source", "reason"),
            registry=registry,
        )
        self.grpc_collisions = Counter(
            "streamgauge_grpc_collisions_total",
            "Rows with the time of another that came with them but for less than a millisecond; one of them is stored.",
            ("source",),
            registry=registry,
        )
        self.ignored_start_times = Counter(
            "streamgauge_ignored_start_timestamps_total",
            "Start timestamps that came with samples; they are not stored yet.",
            registry=registry,
        )
        self.ingest_requests = Counter(
            "streamgauge_ingest_requests_total",
            "Requests that brought data, by the way they came in and the HTTP status of the answer.",
            ("source", "code"),
            registry=registry,
        )
        self.ingest_request_bytes = Counter(
            "streamgauge_ingest_request_bytes_total",
            "Bytes of request bodies as they came over the network.",
            ("source",),
            registry=registry,
        )
        self.ingest_seconds = Histogram(
            "streamgauge_ingest_request_duration_seconds",
            "From the end of a request's body to its answer: decoding, and waiting until it is on disk.",
            ("source",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.inflight_bytes = Gauge(
            "streamgauge_ingest_inflight_bytes",
            "Bytes of request bodies held in memory at this moment.",
            registry=registry,
        )
        self.series_cache_bytes = Gauge(
            "streamgauge_series_cache_bytes",
            "Memory held by the decoders' cache of series.",
            registry=registry,
        )
        self.collector_seconds = Gauge(
            "streamgauge_host_collector_duration_seconds",
            "How long the last run of a host collector took.",
            ("collector",),
            registry=registry,
        )
        self.collector_failures = Counter(
            "streamgauge_host_collector_failures_total",
            "Runs of a host collector that failed or took too long.",
            ("collector",),
            registry=registry,
        )
        self.scrape_failures = Counter(
            "streamgauge_scrape_failures_total",
            "Scrapes that brought nothing, by what went wrong: timeout, fetch, status, content, not_stored.",
            ("reason",),
            registry=registry,
        )
        self.discovery_failures = Counter(
            "streamgauge_discovery_failures_total",
            "Times that a service discovery could not tell its targets, by kind: file, http or dns.",
            ("kind",),
            registry=registry,
        )
        self.sampling_failures = Counter(
            "streamgauge_sampling_failures_total",
            "Rounds of host metrics, self-monitoring or event metrics that could not be stored.",
            ("source",),
            registry=registry,
        )
        self.event_metric_skipped = Counter(
            "streamgauge_event_metric_skipped_total",
            "Events that a rule of event_metrics did not count: overload, too_large, no_number, negative.",
            ("metric", "reason"),
            registry=registry,
        )
        self.event_metric_label_sets_refused = Counter(
            "streamgauge_event_metric_label_sets_refused_total",
            "Events that a rule of event_metrics did not count for its labels: too many sets, or a value too long.",
            ("metric",),
            registry=registry,
        )

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Metrics whose values other parts own: `read` is called whenever the metrics are asked for."""
        self._registry.register(_Watched(read))

    def before(self, enter: Callable[[], None]) -> None:
        """`enter` is called whenever the metrics are asked for, before they are read: by who counts for itself what
        happens so often that to update a metric each time would tell."""
        self._before.append(enter)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge whose value another part owns: `read` is called whenever the metrics are asked for.

        `name` without the prefix; raises ValueError when it is taken.
        """
        Gauge(f"streamgauge_{name}", text, registry=self._registry).set_function(read)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A counter of another part. `name` without prefix and `_total`; raises ValueError when it is taken."""
        return Counter(f"streamgauge_{name}_total", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        """A histogram of seconds of another part. `name` without prefix; raises ValueError when it is taken."""
        return Histogram(f"streamgauge_{name}_seconds", text, labels, buckets=buckets, registry=self._registry)

    def exposition(self) -> bytes:
        """Everything in the Prometheus text format (`CONTENT_TYPE`), for /metrics."""
        self._prepare()
        return generate_latest(self._registry)

    def families(self) -> Iterator[Family]:
        """Everything as values, for storing in our own store. A counter goes by the name that its samples have."""
        self._prepare()
        for metric in self._registry.collect():
            name = metric.name + "_total" if metric.type == "counter" else metric.name
            samples = tuple(
                (sample.name, tuple(sample.labels.items()), sample.value)
                for sample in metric.samples
                if not sample.name.endswith("_created")
            )
            yield Family(name, metric.type, metric.documentation, samples)

    def _prepare(self) -> None:
        for enter in self._before:
            enter()


class Tally:
    """Requests of one way in that were stored and answered alike, and come so often that to update metrics for each of
    them would tell: they are entered when the metrics are asked for. Used on the event loop. One for a server; also:
    counts each of them, too."""

    def __init__(self, stats: Stats, source: str, status: int, also: Sequence[Counter] = ()) -> None:
        self._requests = (stats.ingest_requests.labels(source, str(status)), *also)
        self._request_bytes = stats.ingest_request_bytes.labels(source)
        self._stored = stats.ingested_samples.labels(source)
        self._duration = stats.ingest_seconds.labels(source)
        self._seconds: list[float] = []  # of each request
        self._bytes = self._samples = 0
        stats.before(self.enter)

    def add(self, size: int, samples: int, seconds: float) -> None:
        """A request. size: bytes of its body as it came."""
        self._bytes += size
        self._samples += samples
        self._seconds.append(seconds)
        if len(self._seconds) >= _ENTERED_AT:
            self.enter()

    def enter(self) -> None:
        """Bring the metrics up to date."""
        for counter in self._requests:
            counter.inc(len(self._seconds))
        self._request_bytes.inc(self._bytes)
        self._stored.inc(self._samples)
        for seconds in self._seconds:
            self._duration.observe(seconds)
        self._seconds.clear()
        self._bytes = self._samples = 0
