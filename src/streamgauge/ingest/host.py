"""This host's own metrics, under node_exporter's names: job="node", instance the host's name."""

from __future__ import annotations

import asyncio
import logging
import platform
import socket
from collections.abc import Mapping

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.host_linux import LinuxHost
from streamgauge.ingest.host_portable import PortableHost
from streamgauge.ingest.sampling import Collect, Recorder, labelled, rounds, single
from streamgauge.model.sink import Sink
from streamgauge.stats import Family, Stats

SOURCE = "host"

_log = logging.getLogger(__name__)


class HostMetrics:
    """Samples this host into `sink` until cancelled.

    instance: the `instance` label; by default the host's name.
    collectors: what to sample, by name; by default all that this system has.
    """

    def __init__(
        self,
        sink: Sink,
        stats: Stats,
        clock: Clock,
        instance: str | None = None,
        collectors: Mapping[str, Collect] | None = None,
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._collectors = host_collectors() if collectors is None else collectors
        self._recorder = Recorder(sink, {"job": "node", "instance": instance or socket.gethostname()})
        self._failing: set[str] = set()  # collectors, and SOURCE while nothing can be stored

    async def run(self) -> None:
        async for time in rounds(self._clock):
            await self.sample(time)

    async def sample(self, time: int) -> None:
        """One round at `time` (ms). Failures are counted, and logged when they begin and when they end."""
        families = await asyncio.to_thread(self._collect)
        try:
            stored = await self._recorder.record(families, time)
        except StreamgaugeError as error:
            self._stats.sampling_failures.labels(SOURCE).inc()
            self._failed(SOURCE, f"host metrics cannot be stored: {error.message}")
            return
        self._recovered(SOURCE, "host metrics are stored again")
        self._stats.ingested_samples.labels(SOURCE).inc(stored)

    def _collect(self) -> list[Family]:
        """Run every collector; blocks. One that fails leaves its metrics out and does not stop the others."""
        begun = self._clock.monotonic()
        families: list[Family] = []
        durations: list[tuple[Mapping[str, str], float]] = []
        successes: list[tuple[Mapping[str, str], float]] = []
        for name, collect in self._collectors.items():
            started = self._clock.monotonic()
            try:
                found = list(collect())
            except Exception as error:  # whatever a kernel or a driver makes of its files must not stop the rest
                found = []
                self._stats.collector_failures.labels(name).inc()
                self._failed(name, f"host collector {name} failed: {error!r}")
                successes.append(({"collector": name}, 0.0))
            else:
                self._recovered(name, f"host collector {name} works again")
                successes.append(({"collector": name}, 1.0))
            families += found
            seconds = self._clock.monotonic() - started
            durations.append(({"collector": name}, seconds))
            self._stats.collector_seconds.labels(name).set(seconds)
        count = sum(len(family.samples) for family in families)
        families += (
            labelled("node_scrape_collector_duration_seconds", "gauge", "How long a collector took.", durations),
            labelled("node_scrape_collector_success", "gauge", "Whether a collector succeeded.", successes),
            single("up", "gauge", "1: the host is sampled.", 1.0),
            single("scrape_duration_seconds", "gauge", "How long the round took.", self._clock.monotonic() - begun),
            single("scrape_samples_scraped", "gauge", "Samples of the round.", float(count)),
        )
        return families

    def _failed(self, what: str, message: str) -> None:
        if what not in self._failing:
            _log.warning("%s", message)
        self._failing.add(what)

    def _recovered(self, what: str, message: str) -> None:
        if what in self._failing:
            _log.info("%s", message)
        self._failing.discard(what)


def host_collectors() -> Mapping[str, Collect]:
    """The collectors for the system that this runs on."""
    return (LinuxHost() if platform.system() == "Linux" else PortableHost()).collectors()
