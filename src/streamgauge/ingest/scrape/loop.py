"""When a target is scraped: at fixed times of its own, whatever its last scrape took."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streamgauge.clock import Clock
from streamgauge.http.urls import shown_url
from streamgauge.ingest.scrape.scraper import Scraper
from streamgauge.ingest.scrape.target import Health, Report

LOG = logging.getLogger(__name__)

TOLERANCE_MS = 2
"""A scrape so little off its schedule takes the scheduled time: even intervals compress to almost nothing."""
MAX_DRIFT_MS = 1000
"""The clock has been set when it differs by more from what was scheduled: the schedule follows it."""


class Waking:
    """The wall clock of loops that wake in one pass of the event loop, as all targets of a slot do: for all of them it
    is the time at which the first woke, so that none misses its schedule because of the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now: int | None = None  # until the next pass

    def now_ms(self) -> int:
        if self._now is None:
            self._now = self._clock.now_ms()
            asyncio.get_running_loop().call_soon(self._end)
        return self._now

    def _end(self) -> None:
        self._now = None


class ScrapeLoop:
    """waking: shared by all loops. refusal: why targets are not to be asked at the moment, "" when they are.

    seed: tells servers apart, so that two of them scrape the same target at different times. aligned: at the multiples
    of the interval instead.
    """

    def __init__(
        self,
        scraper: Scraper,
        clock: Clock,
        waking: Waking,
        seed: str,
        refusal: Callable[[], str],
        aligned: bool = False,
    ) -> None:
        self.scraper = scraper
        self.interval = scraper.target.interval  # ms
        self.next_due = 0  # ms
        self._since: float | None = None  # when the scrape that goes on began, monotonic
        self._clock = clock
        self._waking = waking
        self._refusal = refusal
        self._aligned = aligned
        self._offset = 0 if aligned else scraper.target.offset(seed)  # ms, in the interval
        # A boundary is what an aligned scrape is of, however busy everything is just then.
        self._tolerance = min(MAX_DRIFT_MS, self.interval // 10) if aligned else min(TOLERANCE_MS, self.interval // 100)

    async def run(self) -> None:
        """Until cancelled."""
        clock, interval = self._clock, self.interval
        now, begun = clock.now_ns(), clock.monotonic()  # to the ns, so that all of a slot wake at once
        due = self._first_after(now // 1_000_000)
        at = begun + (due * 1_000_000 - now) / 1e9
        while True:
            self.next_due = due
            await clock.sleep(at - clock.monotonic())
            now = self._waking.now_ms()
            if abs(now - due) > MAX_DRIFT_MS and abs(clock.monotonic() - at) * 1000 < MAX_DRIFT_MS:
                LOG.info("the clock was set: scrapes of %s follow it", shown_url(self.scraper.target.url))
                due = now
            time = due if abs(now - due) <= self._tolerance else now
            self.next_due = max(
                due, time
            )  # a marker for a target that goes meanwhile stands behind what this one stores
            await self._scrape(time)
            if self._aligned:  # by the wall clock, however it runs
                now = clock.now_ms()
                due = self._first_after(now if abs(now - due) > interval else max(now, due + 1))
                at = clock.monotonic() + (due - now) / 1000
                continue
            missed = max(0, int((clock.monotonic() - at) * 1000) // interval)
            due += interval * (missed + 1)
            at += interval * (missed + 1) / 1000

    @property
    def taking(self) -> float:
        """For how many seconds a scrape has been going on; 0.0 when none is."""
        return 0.0 if self._since is None else self._clock.monotonic() - self._since

    async def _scrape(self, time: int) -> None:
        self._since = self._clock.monotonic()
        try:
            await self.scraper.scrape(time, self._refusal())
        except Exception as error:  # a mistake of ours with what one target gave must not end the scrapes of the others
            LOG.exception("a scrape of %s failed through a mistake in streamgauge", shown_url(self.scraper.target.url))
            await self._give_up(time, f"a mistake in streamgauge: {error!r}")
        finally:
            self._since = None

    async def _give_up(self, time: int, reason: str) -> None:
        """Store that the target is down, as for any other scrape that fails, if that can be done."""
        self.scraper.forget()
        try:
            await self.scraper.scrape(time, reason)
        except Exception:
            LOG.exception("nor could it be stored that the scrape failed")
            self.scraper.report = Report(Health.DOWN, reason, time)

    def _first_after(self, now: int) -> int:
        return now + (self._offset - now) % self.interval
