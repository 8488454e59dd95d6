from __future__ import annotations

import asyncio
import logging

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import ReadOnly
from streamgauge.ingest.self_monitoring import SelfMonitoring
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink

LABELS = {"job": "streamgauge", "instance": "127.0.0.1:4318"}


def test_our_own_counters_are_stored_as_they_grow() -> None:
    sink, stats, clock = MemorySink(), Stats(), ManualClock()
    monitoring = SelfMonitoring(sink, stats, clock, "127.0.0.1:4318")
    start = clock.now_ms()

    async def scenario() -> None:
        task = asyncio.create_task(monitoring.run())
        counter = stats.refused.labels("remote_write", "too_old")
        counter.inc(10)
        await clock.sleep(0)
        await clock.sleep(0)
        for _ in range(3):
            counter.inc(10)
            await clock.advance(1)
        task.cancel()

    asyncio.run(scenario())
    name = {"__name__": "streamgauge_refused_total", "source": "remote_write", "reason": "too_old"}
    assert sink.samples(**LABELS, **name) == [(start + 1000 * i, 10.0 * (i + 1)) for i in range(4)]
    assert [value for _, value in sink.samples(__name__="up", **LABELS)] == [1.0] * 4
    assert sink.metadata["streamgauge_refused_total"].type == "counter"


def test_a_failure_is_counted_and_logged_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    sink, stats = MemorySink(), Stats()
    monitoring = SelfMonitoring(sink, stats, ManualClock(), "127.0.0.1:4318")
    caplog.set_level(logging.INFO)
    for turn, failure in enumerate((ReadOnly("disk full"), ReadOnly("disk full"), None, None)):
        sink.failure = failure
        asyncio.run(monitoring.sample(1000 * turn))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    failures = {"__name__": "streamgauge_sampling_failures_total", "source": "self"}
    assert sink.samples(**LABELS, **failures)[-1] == (3000, 2.0)
