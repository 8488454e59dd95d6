"""Jobs come and go, their targets come and go, and each is scraped at its time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from streamgauge.clock import ManualClock
from streamgauge.http.client import Resolver
from streamgauge.ingest.discovery.groups import ADDRESS, Discovery, Found, Group
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.loop import ScrapeLoop, Waking
from streamgauge.ingest.scrape.manager import ScrapeManager
from streamgauge.ingest.scrape.target import SLOT_MS, Health
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import STALE_BITS
from streamgauge.relabel import Action, Rule
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.target import HttpTarget, answer, http_target
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

JOB = ScrapeJob("j", interval=10_000, timeout=5000)


class Given:
    """A discovery that a test speaks for."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self._news = asyncio.Event()

    def find(self, *addresses: str) -> None:
        self.addresses = addresses
        self._news.set()

    async def run(self, found: Found) -> None:
        while True:
            found([Group("given", tuple({ADDRESS: address} for address in self.addresses), {})])
            await self._news.wait()
            self._news.clear()


class Running:
    """A manager that runs, and one discovery for each job by name."""

    def __init__(self, sink: MemorySink, clock: ManualClock) -> None:
        self.given: dict[str, Given] = {}
        self.sink, self.clock = sink, clock
        self.manager = ScrapeManager(sink, Stats(), clock, Turns(), "seed", 1 << 20, self._discoveries)

    def _discoveries(self, job: ScrapeJob, resolver: Resolver) -> Sequence[Discovery]:
        return [self.given.setdefault(job.name, Given())]

    def targets(self) -> list[str]:
        return sorted(loop.scraper.target.labels["instance"] for loop in self.loops())

    async def apply(self, *jobs: ScrapeJob) -> None:
        before = dict(self.manager.pools)
        self.manager.apply(jobs)
        wanted = {job.name: job for job in jobs}
        await until(lambda: {name: pool.job for name, pool in self.manager.pools.items()} == wanted)
        fresh = [pool for name, pool in self.manager.pools.items() if before.get(name) is not pool]
        await until(lambda: all(list(pool.loops) or pool.dropped or pool.failures for pool in fresh))
        await until(lambda: all(loop.next_due for loop in self.loops()))

    async def find(self, *addresses: str) -> None:
        """Discovery finds these for the job j, after a while in which it found nothing new."""
        self.given["j"].find(*addresses)
        await until(lambda: self.targets() == sorted(addresses))
        await until(lambda: all(loop.next_due for loop in self.loops()))

    async def pass_seconds(self, seconds: float, hanging: str = "") -> None:
        """Second by second; scrapes that are due in one, but for that of a target that hangs, end in it."""
        for _ in range(round(seconds)):
            await self.clock.advance(1)
            await until(lambda: all(self._idle(loop, hanging) for loop in self.loops()))

    def loops(self) -> Iterator[ScrapeLoop]:
        return (loop for pool in self.manager.pools.values() for loop in pool.loops)

    def _idle(self, loop: ScrapeLoop, hanging: str) -> bool:
        return loop.next_due > self.clock.now_ms() or loop.scraper.target.labels["instance"] == hanging


@pytest.fixture
def clock() -> ManualClock:
    """Between two slots, so that no target is due at once, whichever port it has."""
    return ManualClock(1_700_000_000_000 + SLOT_MS // 2)


@pytest.fixture
async def running(sink: MemorySink, clock: ManualClock) -> AsyncIterator[Running]:
    running = Running(sink, clock)
    task = asyncio.create_task(running.manager.run())
    yield running
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def times(running: Running, **labels: str) -> list[int]:
    return [time for time, _ in running.sink.samples(__name__="up", **labels)]


def ups(running: Running, address: str) -> list[int]:
    return times(running, job="j", instance=address)


async def test_each_target_is_scraped_at_its_own_times(running: Running, target: HttpTarget) -> None:
    async with http_target() as second:
        running.given["j"] = Given(target.address, second.address)
        await running.apply(JOB)
        await running.pass_seconds(60)
        for loop in running.loops():
            stamps = ups(running, loop.scraper.target.labels["instance"])
            assert len(stamps) == 6
            assert {stamp % 10_000 for stamp in stamps} == {loop.scraper.target.offset("seed")}


async def test_loops_that_wake_in_one_pass_see_one_time(clock: ManualClock) -> None:
    waking = Waking(clock)
    first = waking.now_ms()
    clock.jump(50)
    assert waking.now_ms() == first
    await asyncio.sleep(0)
    assert waking.now_ms() == first + 50


async def test_a_target_that_hangs_delays_no_other(running: Running, target: HttpTarget) -> None:
    async with http_target() as hanging:
        hanging.reply = lambda request: None
        running.given["j"] = Given(target.address, hanging.address)
        await running.apply(JOB)
        await running.pass_seconds(60, hanging.address)
        assert len(ups(running, target.address)) == 6
        assert hanging.connections == 1, "its first scrape still waits"


async def test_when_the_clock_is_set_scrapes_follow_it(running: Running, target: HttpTarget) -> None:
    running.given["j"] = Given(target.address)
    await running.apply(JOB)
    await running.pass_seconds(20)
    before = len(ups(running, target.address))
    running.clock.jump(3_600_000)
    for number in range(1, 4):
        await running.pass_seconds(10, target.address)
        await until(lambda: len(ups(running, target.address)) == before + number)  # noqa: B023 - awaited here
    stamps = ups(running, target.address)
    assert stamps[before] - stamps[before - 1] == 3_610_000
    assert stamps[-1] - stamps[before] == 20_000


async def test_targets_come_and_go(running: Running, target: HttpTarget) -> None:
    async with http_target() as second:
        running.given["j"] = Given(target.address)
        await running.apply(JOB)
        await running.pass_seconds(20)
        await running.find(target.address, second.address)
        await running.pass_seconds(20)
        stayed = ups(running, target.address)
        assert {later - sooner for sooner, later in itertools.pairwise(stayed)} == {10_000}, "it goes on as before"
        gone_at = ups(running, second.address)[-1]
        await running.find(target.address)
        await running.pass_seconds(25)
        for metric in ("up", "a"):
            bits = running.sink.bits(__name__=metric, job="j", instance=second.address)
            assert bits[-1] == (gone_at + 10_000, STALE_BITS), "as of the scrape that did not happen"


async def test_a_target_that_is_back_in_time_is_not_marked(running: Running, target: HttpTarget) -> None:
    running.given["j"] = Given(target.address)
    await running.apply(JOB)
    await running.pass_seconds(20)
    await running.apply(ScrapeJob("j", interval=10_000, timeout=4000))
    await running.pass_seconds(60)
    bits = [bits for _, bits in running.sink.bits(__name__="a", job="j", instance=target.address)]
    assert len(bits) == 8
    assert STALE_BITS not in bits


async def test_a_reload_leaves_alone_what_has_not_changed(running: Running, target: HttpTarget) -> None:
    other = ScrapeJob("other", interval=10_000)
    running.given |= {"j": Given(target.address), "other": Given(target.address), "third": Given(target.address)}
    await running.apply(JOB, other)
    kept = running.manager.pools["j"]
    await running.apply(JOB, ScrapeJob("other", interval=20_000), ScrapeJob("third"))
    assert running.manager.pools["j"] is kept
    assert running.manager.pools["other"].job.interval == 20_000
    assert list(running.manager.pools) == ["j", "other", "third"]
    await running.apply()
    assert not running.targets()


async def test_dropped_and_invalid_targets(running: Running, target: HttpTarget) -> None:
    rules = (Rule(Action.DROP, (ADDRESS,), regex="drop.*"),)
    running.given["j"] = Given("drop1:1", "drop2:1", "drop3:1", "http://x", target.address, target.address)
    await running.apply(ScrapeJob("j", relabel=rules, keep_dropped=2))
    pool = running.manager.pools["j"]
    assert [labels[ADDRESS] for labels in pool.dropped] == ["drop1:1", "drop2:1"]
    assert pool.dropped_count == 3
    assert len(pool.failures) == 1
    assert running.targets() == [target.address], "the same target twice is one"
    readings = {reading.name: reading.values for reading in running.manager.readings()}
    assert readings["streamgauge_scrape_targets"] == {("j",): 1.0}
    assert readings["streamgauge_scrape_targets_dropped"] == {("j",): 3.0}
    assert readings["streamgauge_scrape_targets_invalid"] == {("j",): 1.0}


async def test_too_many_targets(running: Running, target: HttpTarget) -> None:
    async with http_target() as second:
        running.given["j"] = Given(target.address, second.address)
        await running.apply(ScrapeJob("j", interval=10_000, target_limit=1))
        await running.pass_seconds(11)
        for loop in running.manager.pools["j"].loops:
            assert loop.scraper.report.health is Health.DOWN
            assert loop.scraper.report.error == "target_limit exceeded: the job has 2 targets; the limit is 1"
        assert not target.requests
        await running.find(target.address)
        await running.pass_seconds(11)
        assert running.sink.samples(__name__="up", job="j", instance=target.address)[-1][1] == 1.0


async def test_a_mistake_of_ours_in_one_scrape_does_not_end_the_others(
    running: Running, target: HttpTarget, caplog: pytest.LogCaptureFixture
) -> None:
    running.given["j"] = Given(target.address)
    await running.apply(JOB)
    running.sink.failure = ZeroDivisionError()  # type: ignore[assignment]
    await running.pass_seconds(11)
    assert "a mistake in streamgauge" in caplog.text
    (loop,) = running.manager.pools["j"].loops
    assert loop.scraper.report.error == "a mistake in streamgauge: ZeroDivisionError()"
    running.sink.failure = None
    target.reply = answer("a 5\n")
    await running.pass_seconds(10)
    assert running.sink.samples(__name__="a", job="j", instance=target.address)[-1][1] == 5.0


async def test_a_mistake_of_ours_in_reading_a_scrape_marks_the_target_down(
    running: Running, target: HttpTarget
) -> None:
    running.given["j"] = Given(target.address)
    await running.apply(JOB)
    await running.pass_seconds(10)
    running.sink.refuse_series = ZeroDivisionError()  # type: ignore[assignment]
    target.reply = answer("a 1\nb 1\n")
    await running.pass_seconds(10)
    assert [up for _, up in running.sink.samples(__name__="up", job="j", instance=target.address)] == [1.0, 0.0]
    assert running.sink.bits(__name__="a", job="j", instance=target.address)[-1][1] == STALE_BITS
    running.sink.refuse_series = None
    await running.pass_seconds(10)
    assert running.sink.samples(__name__="b", job="j", instance=target.address)[-1][1] == 1.0


async def test_other_tasks_have_their_turn_while_a_large_group_is_taken_over(running: Running) -> None:
    addresses = [f"127.0.0.1:{port}" for port in range(1, 2001)]
    seen: list[int] = []

    async def count() -> None:
        while True:
            seen.append(len(running.targets()))
            await asyncio.sleep(0)

    running.given["j"] = Given(*addresses)
    counting = asyncio.create_task(count())
    running.manager.apply([JOB])
    await until(lambda: len(running.targets()) == 2000)
    running.given["j"].find()
    await running.clock.advance(1)
    await until(lambda: not running.targets())
    counting.cancel()
    steps = [abs(later - sooner) for sooner, later in itertools.pairwise(seen)]
    assert max(steps) <= 64
