"""Handing live values on to one destination: they wait in memory, up to a bound, and who is away misses them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from streamgauge.backoff import Backoff
from streamgauge.clock import Clock
from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live.target import LiveValue, Outlet
from streamgauge.stats import Reading

LOG = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Values of some hundred bytes each: those of 500 relays of 20 stats. Beyond that the oldest are lost."""
MAX_WAITING_BYTES = 32 << 20
"""Of memory: a value may have 64 tags of 255 bytes, which are its own where its relay changes them all the time."""
AT_ONCE = 500
"""Values handed on before it is asked whether the other side has them."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


class LivePublisher:
    """Used on the event loop. kind: what it is called."""

    def __init__(self, kind: str, outlet: Outlet, clock: Clock) -> None:
        self.kind = kind
        self.connected = False
        self.published = 0
        self.failures = 0
        self.lost: Counter[str] = Counter()  # by reason
        self._outlet = outlet
        self._clock = clock
        self._waiting: deque[tuple[LiveValue, int]] = deque()  # with their sizes
        self._waiting_bytes = 0
        self._taken: Sequence[LiveValue] = ()
        self._news = asyncio.Event()
        self._told = ""  # the failure that the log has

    def put(self, value: LiveValue) -> None:
        size = value.size
        self._waiting.append((value, size))
        self._waiting_bytes += size
        while len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self._first()
            self.lost["overflow"] += 1
        self._news.set()

    def _first(self) -> LiveValue:
        value, size = self._waiting.popleft()
        self._waiting_bytes -= size
        return value

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random.uniform)
        while True:
            before = self.published
            try:
                await self._outlet.run(self._take, self._given)
            except DeliveryFailed as error:
                self._fail(error.message)
            except Exception as error:  # a bug, which must not end the server
                self._fail(f"{type(error).__name__}: {error}", error)
            if self.published > before:
                backoff.reset()
            await self._clock.sleep(backoff.pause())

    async def _take(self) -> Sequence[LiveValue]:
        """The next values, as soon as there are some. Whoever asks is connected."""
        self._connect()
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        self._taken = [self._first() for _ in range(min(len(self._waiting), AT_ONCE))]
        return self._taken

    def _given(self, unnamed: int) -> None:
        self.published += len(self._taken) - unnamed
        if unnamed:
            self.lost["name"] += unnamed
        self._taken = ()

    def _connect(self) -> None:
        if not self.connected:
            self.connected, self._told = True, ""
            LOG.info("live values are published to %s", self.kind)

    def _fail(self, words: str, bug: Exception | None = None) -> None:
        self.connected = False
        self.failures += 1
        self.lost["connection"] += len(self._taken)
        self._taken = ()
        if words != self._told:
            LOG.error("live values are not published to %s, which is tried again: %s", self.kind, words, exc_info=bug)
            self._told = words


def readings(publishers: Iterable[LivePublisher]) -> Iterator[Reading]:
    """What is so at the moment, for /metrics."""
    every = list(publishers)
    for name, kind, text, values in (
        ("published_total", "counter", "Live values that a destination has.", {p.kind: p.published for p in every}),
        ("failures_total", "counter", "Connections that failed or ended.", {p.kind: p.failures for p in every}),
        ("connected", "gauge", "Whether a destination is connected.", {p.kind: int(p.connected) for p in every}),
    ):
        labelled: dict[tuple[str, ...], float] = {(to,): float(value) for to, value in values.items()}
        yield Reading(f"streamgauge_live_publish_{name}", kind, text, labelled, ("to",))
    yield Reading(
        "streamgauge_live_publish_lost_total",
        "counter",
        "Live values that a destination does not get: overflow, connection (which failed meanwhile), name (too long).",
        {(publisher.kind, reason): count for publisher in every for reason, count in publisher.lost.items()},
        ("to", "reason"),
    )
