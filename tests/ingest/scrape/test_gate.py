"""Who is slow makes room after a while, and who is done at once."""

from __future__ import annotations

import asyncio

import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.scrape.gate import AT_ONCE, PATIENCE_SECONDS, Gate
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


class Passing:
    def __init__(self, gate: Gate) -> None:
        self.inside = 0
        self._gate = gate

    async def hang(self) -> None:
        async with self._gate.passing():
            self.inside += 1
            await asyncio.Event().wait()


async def test_so_many_at_once_and_more_when_these_take_long() -> None:
    clock = ManualClock()
    passing = Passing(Gate(clock))
    tasks = [asyncio.create_task(passing.hang()) for _ in range(AT_ONCE + 2)]
    await until(lambda: clock.sleepers == AT_ONCE)
    assert passing.inside == AT_ONCE
    await clock.advance(PATIENCE_SECONDS)
    await until(lambda: passing.inside == AT_ONCE + 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_whoever_is_done_makes_room_once() -> None:
    clock = ManualClock()
    gate = Gate(clock)
    for _ in range(3):
        async with gate.passing():
            pass
    passing = Passing(gate)
    tasks = [asyncio.create_task(passing.hang()) for _ in range(AT_ONCE + 2)]
    await until(lambda: clock.sleepers == AT_ONCE)
    assert passing.inside == AT_ONCE
    tasks[0].cancel()
    await until(lambda: passing.inside == AT_ONCE + 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
