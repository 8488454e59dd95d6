"""Samples of hosts, made of counters in this program: at once, and then each minute."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from streamgauge.model.host_history import QUANTILE, HostSample

INTERVAL_SECONDS = 60.0

LOG = logging.getLogger(__name__)


class Counted(Protocol):
    """What is counted of a host since the program started; client.HostCounts is such. buckets: one for each bound, and
    one for what is above."""

    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def buckets(self) -> Sequence[int]: ...
    @property
    def backends(self) -> int: ...


class Counters(Protocol):
    """Where the counts come from; client.HostCounters is such. bounds: of the latency, in seconds, ascending."""

    @property
    def bounds(self) -> Sequence[float]: ...
    def read(self) -> Mapping[str, Counted]: ...


class Recording(Protocol):
    """Where samples go; embed.Store is such."""

    def record_all(self, samples: Sequence[tuple[str, HostSample]], /) -> bool: ...


class Collector:
    """Samples `counters` into `store` on a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        store: Recording,
        counters: Counters,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if interval <= 0:
            raise ValueError("the interval must be more than 0 seconds")
        self._store = store
        self._counters = counters
        self._interval = interval
        self._clock = clock
        self._monotonic = monotonic
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._before: Mapping[str, Counted] = {}
        self._sampled = 0.0  # when, monotonic

    def start(self) -> None:
        """Once. Raises RuntimeError when it has been started before."""
        if self._thread is not None:
            raise RuntimeError("the collector has been started before")
        self._thread = threading.Thread(target=self._run, name="streamgauge-collector", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """When this returns, nothing is sampled any more."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Collector:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def sample(self) -> None:
        """Take one sample of each host. On one thread at a time."""
        now, counts = self._monotonic(), self._counters.read()
        seconds, ts = now - self._sampled, int(self._clock())
        bounds = self._counters.bounds
        samples = [
            (host, _sample(ts, self._before.get(host), after, seconds, bounds)) for host, after in counts.items()
        ]
        if samples:
            self._store.record_all(samples)
        self._before, self._sampled = counts, now

    def _run(self) -> None:
        due = self._monotonic()
        while True:
            try:
                self.sample()
            except Exception:  # whatever a function of the program does
                LOG.warning("the counters of hosts cannot be read", exc_info=True)
            due = max(due + self._interval, self._monotonic())
            if self._stopped.wait(due - self._monotonic()):
                return


def _sample(ts: int, before: Counted | None, after: Counted, seconds: float, bounds: Sequence[float]) -> HostSample:
    """Without rates where there is nothing before, or where a counter has gone down."""
    if before is None or seconds <= 0 or after.requests <= before.requests:
        return HostSample(ts, active_backends=after.backends)
    requests = after.requests - before.requests
    errors = max(after.errors - before.errors, 0)
    buckets = [max(now - then, 0) for now, then in zip(after.buckets, before.buckets, strict=True)]
    p99 = 1000 * quantile(bounds, buckets, QUANTILE)
    return HostSample(ts, requests / seconds, p99, min(100.0 * errors / requests, 100.0), after.backends)


def quantile(bounds: Sequence[float], buckets: Sequence[int], q: float) -> float:
    """Of a histogram, as if each bucket were evenly filled. Above all bounds the highest bound, 0 of none."""
    rank, below, lower = q * sum(buckets), 0, 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return lower if sum(buckets) else 0.0
