"""Each minute a sample of each host, made of the counters that are stored of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.sampling import Recorder, Reporter
from streamgauge.model.host_history import HELP, METRICS, HostSettings
from streamgauge.model.sink import Sink
from streamgauge.stats import Family, Stats

_log = logging.getLogger(__name__)

SOURCE = "host_history"

LATE_ROUNDS = 5
"""A round that is so many intervals later, as after a clock was set, is of one interval and not of all that time."""
SETTLED_MS = 1000
"""A round is of a moment so long ago: scrapes of then are stored by now. What comes later would be in no sample."""

Ask = Callable[[HostSettings, int, int], Awaitable[bytes]]
"""The samples of all hosts between two times (ms), as `query.hosts.sampling` makes them."""
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Round:
    """What is stored of the hosts, which these are, how many were more than may be, and why sources failed."""

    families: tuple[Family, ...]
    hosts: frozenset[Labels]
    left_out: int
    failures: Mapping[str, str]


class HostSampler:
    """Used on the event loop. Without settings it rests."""

    def __init__(self, sink: Sink, stats: Stats, clock: Clock, ask: Ask) -> None:
        self._clock = clock
        self._ask = ask
        self._failed = stats.counter(
            "host_history_failures", "Rounds in which a source of host samples could not be asked.", "source"
        )
        self._refused = stats.refused
        self._reporter = Reporter(Recorder(sink, {}), stats, SOURCE, "host samples")
        self._settings: HostSettings | None = None
        self._changed = asyncio.Event()
        self._known: frozenset[Labels] = frozenset()  # hosts of the last round
        self._last: int | None = None  # round that told of anything, ms
        self._failing: Mapping[str, str] = {}  # why, by source

    def apply(self, settings: HostSettings | None) -> None:
        """What is sampled from now on."""
        if settings != self._settings:
            self._settings = settings
            self._changed.set()

    async def run(self) -> None:
        """Samples at once, then once in each interval, until cancelled. Rounds that a slow one made impossible are left
        out."""
        while True:
            self._changed.clear()
            if (settings := self._settings) is None:
                await self._changed.wait()
                continue
            seconds, begun = settings.interval / 1000, self._clock.monotonic()
            while not self._changed.is_set():
                await self.sample(self._clock.now_ms() - SETTLED_MS, settings)
                await self._pause(seconds - (self._clock.monotonic() - begun) % seconds)

    async def _pause(self, seconds: float) -> None:
        """So long, or until there are other settings."""
        waits = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._changed.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def sample(self, now: int, settings: HostSettings) -> None:
        """One round, at `now` (ms): of what has happened since the last one that was stored, and in which a source
        could be asked."""
        since = now - settings.interval if self._last is None else self._last
        if not 0 < now - since <= LATE_ROUNDS * settings.interval:
            since = now - settings.interval
        try:
            answer = await self._ask(settings, since, now)
        except StreamgaugeError as error:
            self._tell({source.name: error.message for source in settings.sources})
            return
        found = await asyncio.to_thread(_read, answer, self._known, settings.max_hosts)
        self._tell(found.failures)
        if found.left_out:
            self._refused.labels(SOURCE, "host_limit").inc(len(METRICS) * found.left_out)
        self._known = found.hosts
        stored = await self._reporter.report(found.families, now)
        if stored and len(found.failures) < len(settings.sources):
            self._last = now

    def _tell(self, failures: Mapping[str, str]) -> None:
        """Count what failed, and log it when it begins."""
        for name, why in failures.items():
            self._failed.labels(name).inc()
            if name not in self._failing:
                _log.warning("hosts cannot be sampled from %s: %s", name, why)
        self._failing = failures


def _read(answer: bytes, known: frozenset[Labels], limit: int) -> _Round:
    """As many hosts as may be, of which those that are known come first."""
    found = json.loads(answer)
    values = {tuple((name, text) for name, text in labels.items() if text): rest for labels, *rest in found["samples"]}
    order = sorted(values, key=lambda labels: labels not in known)
    rows = [(labels, values[labels]) for labels in order[:limit]]
    left_out = len(order) - len(rows)
    return _Round(tuple(_families(rows)), frozenset(order[:limit]), left_out, found["failures"])


def _families(rows: Sequence[tuple[Labels, Sequence[float]]]) -> Iterator[Family]:
    for place, (member, name) in enumerate(METRICS.items()):
        yield Family(name, "gauge", HELP[member], tuple((name, labels, values[place]) for labels, values in rows))
