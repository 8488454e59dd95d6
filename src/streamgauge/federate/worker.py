"""The client at work: a task that scrapes into the buffer, and a task that pushes what is in it.

They are apart so that a server that is away, or slow, delays no scrape. Scrapes begin at a random moment of the first
interval, so that a thousand clients that start together do not push together; from one scrape to the next is an
interval, never less, since a server may allow one push an interval.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from streamgauge.backoff import Backoff
from streamgauge.clock import Clock
from streamgauge.errors import ConfigError, FetchFailed, StorageError, StreamgaugeError
from streamgauge.federate.batch import Batch, labels_size, make_push
from streamgauge.federate.buffer import Buffer, Waiting
from streamgauge.federate.config import FederateConfig
from streamgauge.federate.metrics import ClientMetrics
from streamgauge.federate.source import Source
from streamgauge.federate.target import Grant, NoGrant, Outcome, Target, Verdict
from streamgauge.federate.transforms import oldest
from streamgauge.http.client import Resolver
from streamgauge.wire import snappy_frames
from streamgauge.wire.metric_family import MetricFamily
from streamgauge.wire.metric_family_protobuf import encode

LOG = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
"""Seconds between tries. After a 429 too: a server that counts pushes does not count those that it turns away."""
AGE_MARGIN_MS = 60_000
"""What is almost too old when it is pushed may be so when it arrives, by a clock that may be another, and a server then
refuses all of the push."""
_MOST_BATCHES = 1000
"""In one push. Their size bounds them before."""

_GROW_AFTER = 20
"""Pushes that a server takes before twice as much is tried again, where it once found one too large."""

_T = TypeVar("_T")


@dataclass(slots=True)
class Status:
    """How it goes: what failed last, "" where the last time was well; None before there was a time."""

    scrape: str | None = None
    push: str | None = None

    def problems(self) -> list[str]:
        """Why the client is not ready; nothing when it is."""
        problems = []
        for what, why in (("scrape", self.scrape), ("push", self.push)):
            if why is None:
                problems.append(f"{what}: not done yet")
            elif why:
                problems.append(f"{what}: {why}")
        return problems


class Worker:
    """Runs with one configuration after another, and one buffer. draw: a random number between two."""

    def __init__(
        self,
        config: FederateConfig,
        buffer: Buffer,
        clock: Clock,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.status = Status()
        self.metrics = ClientMetrics(buffer)
        self.sent: tuple[MetricFamily, ...] = ()  # of the newest batch that was pushed
        self._buffer = buffer
        self._clock = clock
        self._draw = draw
        self._resolver = Resolver()
        self._disk = ThreadPoolExecutor(1, "buffer")
        self._most = _MOST_BATCHES
        self._fresh = False  # a batch was added since the last push was tried
        self._changed = asyncio.Event(), asyncio.Event()  # the configuration; for the scraping and the pushing task
        self._added = asyncio.Event()
        self._confirmed = clock.monotonic()  # when a push was taken
        self._use(config)

    def reconfigure(self, config: FederateConfig) -> None:
        """Go on with another configuration, at once."""
        self._source.close()
        self._target.close()
        self._use(config)
        for event in self._changed:
            event.set()
        self._added.set()

    def _use(self, config: FederateConfig) -> None:
        self._config = config
        self._warned = False  # that no two scrapes fit into a push
        self._source = Source(config, self._resolver, self.metrics.http)
        self._target = Target(config, self._clock, self._resolver, self.metrics.http)
        self._fits = config.limit_bytes  # bytes of a push, as far as is known of the server
        self._fitted = 0  # pushes that it took since one was too large

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._scrape_always())
                group.create_task(self._push_always())
        finally:
            self._source.close()
            self._target.close()
            self._disk.shutdown(wait=True)
            self._resolver.close()

    # ---- scraping ---------------------------------------------------------------------------------------------------

    async def _scrape_always(self) -> None:
        changed = self._changed[0]
        next_time = self._clock.monotonic() + self._draw(0, self._config.interval_seconds)
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, self._draw)
        while True:
            await self._pause_until(next_time, changed)
            begun = self._clock.monotonic()
            interval = self._config.interval_seconds
            if await self._scrape():
                backoff.reset()
                next_time = begun + interval
            else:
                next_time = self._clock.monotonic() + min(backoff.pause(), interval)

    async def _scrape(self) -> bool:
        self.metrics.requests += 1
        try:
            batch = await self.scrape_once()
        except (FetchFailed, ConfigError) as error:
            self.metrics.failed += 1
            LOG.error("nothing is scraped: %s", error.message)
            self.status.scrape = error.message
            return False
        self.status.scrape = ""
        if not batch.families:
            LOG.warning("there is nothing to push: the scrape gave no metrics that a server takes")
            self.status.push = self.status.push or ""
            return True
        try:
            await self._on_disk(self._buffer.add, batch)
        except StorageError as error:
            self.metrics.unbuffered += 1
            LOG.error("%s", error.message)
        self._fresh = True
        self._added.set()
        return True

    async def scrape_once(self) -> Batch:
        """One scrape, as it may leave this machine. Raises FetchFailed, ConfigError."""
        config = self._config
        families, size = await self._source.scrape()
        done = config.transforms.apply(families, self._clock.now_ms())
        self.metrics.scraped, self.metrics.removed = done.scraped, done.scraped - done.left
        LOG.debug("scraped %d metrics in %d bytes; %d are left", done.scraped, size, done.left)
        if 2 * size > config.limit_bytes and not self._warned:
            self._warned = True
            LOG.warning(
                "a scrape has %d bytes, more than half of --limit-bytes: what an outage leaves behind cannot be put "
                "together, and a server that takes a push an interval takes it as slowly as it came",
                size,
            )
        return Batch(done.families)

    # ---- pushing ----------------------------------------------------------------------------------------------------

    async def _push_always(self) -> None:
        changed = self._changed[1]
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, self._draw)
        while True:
            if not self._buffer.waiting:
                self._added.clear()
                await self._added.wait()
            outcome = await self._push()
            if outcome is None:
                continue
            if outcome.verdict is Verdict.TAKEN:
                backoff.reset()
                if self.status.push != "":
                    LOG.info("pushed; the server takes it")
                self.status.push = ""
                self._confirmed = self._clock.monotonic()
                continue
            self._tell(outcome)
            pause = FIRST_PAUSE if outcome.verdict is Verdict.TOO_LARGE else backoff.pause()
            await self._pause_until(self._clock.monotonic() + max(pause, outcome.retry_after or 0), changed)

    def _tell(self, outcome: Outcome) -> None:
        """Of a push that was not taken. That a server has it wait is no fault, unless it waits for long."""
        self.metrics.failed += 1
        waits = self._clock.monotonic() - self._confirmed <= 2 * self._config.interval_seconds
        if outcome.verdict is Verdict.LATER and waits and self.status.push is not None:
            LOG.info("to be pushed later: %s", outcome.message)
            return
        self.status.push = outcome.message
        LOG.error("not pushed: %s", outcome.message)

    async def _push(self) -> Outcome | None:
        """Push the oldest batches, as many as fit. None when there was nothing to push after all."""
        least = oldest(self._clock.now_ms() + AGE_MARGIN_MS)
        await self._on_disk(self._buffer.drop_older, least)
        if not self._buffer.waiting:
            return None
        self.metrics.requests += not self._fresh
        self._fresh = False
        try:
            grant = await self._target.grant()
            chosen = await self._choose(grant)
            batches = [(one, await self._on_disk(self._buffer.load, one)) for one in chosen]
            self._tell_faults()
            loaded = [(one, batch) for one, batch in batches if batch is not None]
            outcome = await self._send([batch for _, batch in loaded], grant, least)
        except NoGrant as error:
            return Outcome(Verdict.FAILED, error.message, error.retry_after)
        except StreamgaugeError as error:
            return Outcome(Verdict.FAILED, error.message)
        await self._settle([one for one, _ in loaded], outcome)
        return outcome

    async def _choose(self, grant: Grant) -> Sequence[Waiting]:
        """The oldest batches whose push stays below the limit; one in any case. Where the server is known to take less
        than a scrape may have, the oldest is made smaller first."""
        label_bytes = labels_size(grant.labels)
        while self._fits < self._config.limit_bytes and self._buffer.waiting:
            first = self._buffer.waiting[0]
            if first.about.size + label_bytes * first.about.metrics < self._fits:
                break
            if not await self._on_disk(self._buffer.split, first):
                break
        left = self._fits
        waiting = self._buffer.waiting[: self._most]
        for number, one in enumerate(waiting):
            left -= one.about.size + label_bytes * one.about.metrics
            if left <= 0:
                return waiting[: max(number, 1)]
        return waiting

    async def _send(self, batches: Sequence[Batch], grant: Grant, least: int) -> Outcome:
        """Push; when the access token is not accepted, once more with a new one, whose labels may be others."""
        for again in (True, False):
            push = make_push(batches, grant.labels, least)
            if not push.families:
                outcome = Outcome(Verdict.TAKEN)
                break
            content = encode(push.families)
            outcome, unauthorized = await self._target.push(snappy_frames.encode(content), grant.token, push.part)
            if outcome.verdict is Verdict.TOO_LARGE and sum(batch.metrics for batch in batches) > 1:
                self._fits, self._fitted = max(min(self._fits, len(content)) - 1, 1), 0
            if not unauthorized:
                break
            self._target.forget()
            if again:
                grant = await self._target.grant()
        if outcome.verdict is Verdict.TAKEN:
            self._grow()
            self._buffer.lost["old"] += push.dropped
            pushed = sum(len(family.metrics) for family in push.families)
            self.metrics.pushed += pushed
            LOG.debug("pushed %d metrics of %d batches", pushed, len(batches))
            self.sent = push.last or self.sent
        return outcome

    def _grow(self) -> None:
        """The server may have been told to take more."""
        self._fitted += 1
        if self._fitted >= _GROW_AFTER:
            self._fits, self._fitted = min(2 * self._fits, self._config.limit_bytes), 0

    async def _settle(self, chosen: Sequence[Waiting], outcome: Outcome) -> None:
        """What becomes of the batches of a push. One of several that is refused may be for one of them: it is tried
        with fewer. One that is too large will be smaller."""
        if outcome.verdict is Verdict.TAKEN:
            await self._on_disk(self._buffer.remove, chosen)
            self._most = min(2 * self._most, _MOST_BATCHES)
        elif outcome.verdict is Verdict.REFUSED and len(chosen) > 1:
            self._most = len(chosen) // 2
        elif outcome.verdict is Verdict.REFUSED or (
            outcome.verdict is Verdict.TOO_LARGE and len(chosen) == 1 and chosen[0].about.metrics == 1
        ):
            await self._on_disk(self._buffer.refuse, chosen[0])

    def _tell_faults(self) -> None:
        for fault in self._buffer.take_faults():
            LOG.error("%s", fault)

    # ---- waiting ----------------------------------------------------------------------------------------------------

    async def _on_disk(self, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def _pause_until(self, moment: float, changed: asyncio.Event) -> None:
        """Wait until a moment of the monotonic clock; not longer than until the configuration changes."""
        sleep = asyncio.create_task(self._sleep_until(moment))
        change = asyncio.create_task(changed.wait())
        try:
            await asyncio.wait((sleep, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()
        changed.clear()

    async def _sleep_until(self, moment: float) -> None:
        await self._clock.sleep(max(0.0, moment - self._clock.monotonic()))
