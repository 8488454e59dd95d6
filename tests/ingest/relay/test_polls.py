from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.relay.polls import Polls

pytestmark = pytest.mark.anyio


@dataclass
class Relay:
    name: str
    clock: ManualClock
    ended: str = ""
    asked: list[float] = field(default_factory=list)

    def ask(self) -> bool:
        self.asked.append(self.clock.monotonic())
        return True


async def test_each_has_times_of_its_own_that_are_an_interval_apart(clock: ManualClock) -> None:
    await clock.advance(41_234.567)  # a host that runs for half a day
    polls = Polls(clock, 10.0)
    relays = [Relay(f"relay{number}", clock) for number in range(200)]
    for relay in relays:
        polls.add(relay)
    relays[0].ended = "closed"
    running = asyncio.ensure_future(polls.run())
    await asyncio.sleep(0)
    await clock.advance(60.0)
    running.cancel()
    assert not relays[0].asked
    regular = []
    for relay in relays[1:]:
        first, second, *others = relay.asked
        assert first < 41_234.567 + 0.2
        assert second - first < 10.1
        assert len(others) in (4, 5)
        gaps = [after - before for before, after in zip([second, *others], others, strict=False)]
        assert all(9.9 < gap < 10.1 for gap in gaps), gaps
        regular.append(second % 10)
    tenths = [sum(each <= second < each + 1 for second in regular) for each in range(10)]
    assert min(tenths) > 5  # none of ten seconds is left without


async def test_after_a_stall_each_is_asked_once(clock: ManualClock) -> None:
    polls = Polls(clock, 10.0)
    relay = Relay("web1", clock)
    polls.add(relay)
    await clock.advance(1.0)
    assert len(list(polls._now_due())) == 1
    await clock.advance(600.0)  # in which nothing runs
    assert list(polls._now_due()) == [relay]
    await clock.advance(10.0)
    assert list(polls._now_due()) == [relay]
