"""Stale markers for the series of who is gone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.ingest.departed import Departed
from streamgauge.testing import MemorySink

pytestmark = pytest.mark.anyio

HOUR_MS, QUARTER_MS = 3_600_000, 15_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_goes_later_with_a_shorter_interval_is_marked_first() -> None:
    clock, sink = ManualClock(), MemorySink()
    departed = Departed(sink, clock)
    work = asyncio.create_task(departed.run())
    slow, quick = (np.array([sink.resolve(key)], np.uint32) for key in (b"slow", b"quick"))
    departed.add([slow], clock.now_ms() + HOUR_MS, HOUR_MS)
    await settle()
    departed.add([quick], clock.now_ms() + QUARTER_MS, QUARTER_MS)
    await settle()
    assert clock.sleepers == 1
    await clock.advance(32)
    await settle()
    assert [batch.series.tolist() for batch in sink.batches] == [quick.tolist()]
    assert departed.waiting == 1
    await clock.advance(3 * 3_600)
    await settle()
    assert [batch.series.tolist() for batch in sink.batches] == [quick.tolist(), slow.tolist()]
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
