"""Rounds of samples of hosts, on their way into the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from streamgauge.clock import ManualClock
from streamgauge.derive.host_sampler import SETTLED_MS, HostSampler
from streamgauge.errors import Overloaded, ReadOnly
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.host_history import METRICS, HostSettings
from streamgauge.model.host_sources import SOURCES
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.readings import reading
from streamgauge.testing.until import until

ALL = HostSettings(60_000, (SOURCES["app"], SOURCES["caddy"]), max_hosts=2)


class Stand:
    """A sampler whose questions are answered with `hosts`, or fail."""

    def __init__(self) -> None:
        self.sink, self.stats, self.clock = MemorySink(), Stats(), ManualClock()
        self.hosts: Sequence[str] = ("a",)
        self.failures: dict[str, str] = {}
        self.overloaded = False
        self.asked: list[tuple[int, int]] = []
        self.sampler = HostSampler(self.sink, self.stats, self.clock, self.ask)

    async def ask(self, settings: HostSettings, since: int, now: int) -> bytes:
        self.asked.append((since, now))
        if self.overloaded:
            raise Overloaded("20 queries wait already")
        rows = [[{"host": host, "team": ""}, 1.5, 20.0, 3.0, 2] for host in self.hosts]
        return json.dumps({"samples": rows, "failures": self.failures}).encode()

    def samples(self, name: str, host: str) -> list[Any]:
        return self.sink.samples(__name__=METRICS[name], host=host)

    def counted(self, name: str, **labels: str) -> float:
        return reading(self.stats, name, **labels)


def test_hosts_are_sampled_at_once_and_then_each_minute() -> None:
    async def scenario() -> None:
        stand = Stand()
        stand.sampler.apply(ALL)
        begun = stand.clock.now_ms() - SETTLED_MS
        task = asyncio.create_task(stand.sampler.run())
        await until(lambda: stand.clock.sleepers)
        await stand.clock.advance(60)
        await until(lambda: len(stand.samples("p99_ms", "a")) == 2)
        task.cancel()
        assert stand.asked == [(begun - 60_000, begun), (begun, begun + 60_000)]
        assert stand.samples("requests_sec", "a") == [(begun, 1.5), (begun + 60_000, 1.5)]
        assert stand.samples("active_backends", "a")[0] == (begun, 2.0)
        assert stand.counted("streamgauge_ingested_samples_total", source="host_history") == 8

    asyncio.run(scenario())


def test_a_sample_is_of_all_the_time_since_the_last_unless_a_clock_was_set() -> None:
    async def scenario() -> None:
        stand = Stand()
        times = (600_000, 680_000, 5_000_000, 900_000, 900_000)
        for time in times:
            await stand.sampler.sample(time, ALL)
        assert [now - since for since, now in stand.asked] == [60_000, 80_000, 60_000, 60_000, 60_000]

    asyncio.run(scenario())


def test_a_slow_round_delays_no_later_one() -> None:
    async def scenario() -> None:
        stand = Stand()
        stand.sampler.apply(ALL)
        begun = stand.clock.now_ms() - SETTLED_MS
        go_on = asyncio.Event()
        ask = stand.ask

        async def slow(settings: HostSettings, since: int, now: int) -> bytes:
            found = await ask(settings, since, now)
            await go_on.wait()
            return found

        stand.sampler._ask = slow
        task = asyncio.create_task(stand.sampler.run())
        await until(lambda: stand.asked)
        await stand.clock.advance(70)
        go_on.set()
        await until(lambda: stand.clock.sleepers)
        await stand.clock.advance(50)
        await until(lambda: len(stand.asked) == 2)
        task.cancel()
        assert stand.asked[1] == (begun, begun + 120_000)

    asyncio.run(scenario())


def test_a_host_that_is_gone_is_marked_so() -> None:
    async def scenario() -> None:
        stand = Stand()
        await stand.sampler.sample(1_000, ALL)
        stand.hosts = ()
        await stand.sampler.sample(61_000, ALL)
        assert stand.samples("p99_ms", "a")[0] == (1_000, 20.0)
        assert stand.sink.bits(__name__=METRICS["p99_ms"], host="a")[1] == (61_000, STALE_BITS)

    asyncio.run(scenario())


def test_hosts_beyond_the_limit_are_counted_and_those_that_were_there_stay() -> None:
    async def scenario() -> None:
        stand = Stand()
        stand.hosts = ("b", "c")
        await stand.sampler.sample(1_000, ALL)
        stand.hosts = ("a", "b", "c")
        await stand.sampler.sample(61_000, ALL)
        assert [len(stand.samples("p99_ms", host)) for host in "abc"] == [0, 2, 2]
        assert stand.counted("streamgauge_refused_total", source="host_history", reason="host_limit") == 4

    asyncio.run(scenario())


def test_sources_that_fail_are_counted() -> None:
    async def scenario() -> None:
        stand = Stand()
        stand.failures = {"caddy": "many-to-many"}
        await stand.sampler.sample(1_000, ALL)
        stand.overloaded = True
        await stand.sampler.sample(61_000, ALL)
        assert len(stand.samples("p99_ms", "a")) == 1
        assert stand.counted("streamgauge_host_history_failures_total", source="caddy") == 2
        assert stand.counted("streamgauge_host_history_failures_total", source="app") == 1

    asyncio.run(scenario())


def test_requests_of_a_round_that_failed_are_in_the_next_one() -> None:
    async def scenario() -> None:
        stand = Stand()
        await stand.sampler.sample(60_000, ALL)
        stand.overloaded = True
        await stand.sampler.sample(120_000, ALL)
        stand.overloaded = False
        stand.failures = {"app": "too many samples", "caddy": "too many samples"}
        await stand.sampler.sample(180_000, ALL)
        del stand.failures["app"]
        await stand.sampler.sample(240_000, ALL)
        await stand.sampler.sample(300_000, ALL)
        assert [since for since, _ in stand.asked[1:]] == [60_000, 60_000, 60_000, 240_000]

    asyncio.run(scenario())


def test_a_store_that_takes_nothing_is_tried_again() -> None:
    class Full(MemorySink):
        full = True

        async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
            if self.full:
                raise ReadOnly("the disk is full")
            await super().append(batch, metadata)

    async def scenario() -> None:
        stand, sink = Stand(), Full()
        sampler = HostSampler(sink, Stats(), stand.clock, stand.ask)
        sink.full = False
        await sampler.sample(1_000, ALL)
        sink.full = True
        await sampler.sample(61_000, ALL)
        sink.full = False
        await sampler.sample(121_000, ALL)
        assert sink.samples(__name__=METRICS["p99_ms"], host="a") == [(1_000, 20.0), (121_000, 20.0)]
        assert stand.asked[2] == (1_000, 121_000)

    asyncio.run(scenario())


def test_settings_can_come_change_and_go() -> None:
    async def scenario() -> None:
        stand = Stand()
        task = asyncio.create_task(stand.sampler.run())
        await asyncio.sleep(0)
        assert not stand.asked
        stand.sampler.apply(ALL)
        await until(lambda: len(stand.asked) == 1)
        stand.sampler.apply(ALL)
        stand.sampler.apply(HostSettings(1_000, ALL.sources))
        await until(lambda: len(stand.asked) == 2)
        stand.sampler.apply(None)
        await until(lambda: not stand.clock.sleepers)
        await stand.clock.advance(600)
        assert len(stand.asked) == 2
        task.cancel()

    asyncio.run(scenario())
