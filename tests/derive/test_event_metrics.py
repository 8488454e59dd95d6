"""From what the store tells its listeners to samples."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pyarrow as pa

from streamgauge.clock import ManualClock
from streamgauge.derive.event_metrics import QUEUE_BYTES, EventMetrics
from streamgauge.derive.rule import EventMetric, Kind
from streamgauge.model.events import EventBatch, Stream
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.readings import reading
from streamgauge.testing.until import until

STREAM = Stream(1, 0, "http", "{}")
ALL = EventMetric("all_total", Kind.COUNT)
BY_LEVEL = EventMetric("by_level_total", Kind.COUNT, labels=(("level", ("level",)),))
FIXED = {"job": "events", "instance": "here"}


def batch(*payloads: Any) -> EventBatch:
    return EventBatch(STREAM, 1, 0, pa.array([json.dumps(payload).encode() for payload in payloads], pa.binary()))


class Stand:
    """What a test drives."""

    def __init__(self, *rules: EventMetric) -> None:
        self.sink, self.stats, self.clock = MemorySink(), Stats(), ManualClock()
        self.metrics = EventMetrics(self.sink, self.stats, self.clock, "here")
        self.metrics.apply(rules)

    def store(self, *payloads: Any) -> None:
        self.metrics.stored_events(1, [batch(*payloads)])

    def last(self, name: str, **labels: str) -> float | None:
        found = self.sink.samples(__name__=name, **FIXED, **labels)
        return found[-1][1] if found else None

    def counted(self, name: str, **labels: str) -> float:
        return reading(self.stats, name, **labels)


def test_events_become_samples_of_each_round() -> None:
    async def scenario() -> None:
        stand = Stand(ALL, BY_LEVEL)
        task = asyncio.create_task(stand.metrics.run())
        await until(lambda: stand.last("all_total") == 0.0)
        stand.store({"level": "info"}, {"level": "warn"})
        stand.store({"level": "warn"})
        await until(lambda: stand.metrics.queued == 0)
        await stand.clock.advance(1)
        await until(lambda: stand.last("all_total") == 3.0)
        assert stand.last("by_level_total", level="warn") == 2.0
        assert stand.sink.metadata["by_level_total"].type == "counter"
        task.cancel()

    asyncio.run(scenario())


def test_what_waits_when_the_server_stops_is_counted_and_sampled() -> None:
    async def scenario() -> None:
        stand = Stand(BY_LEVEL)
        task = asyncio.create_task(stand.metrics.run())
        await asyncio.sleep(0)
        stand.store(*({"level": "info"} for _ in range(5000)))
        await until(lambda: stand.metrics.queued == 0)  # the first of its turns has begun, most have not
        stand.store({"level": "info"})
        task.cancel()
        await asyncio.wait([task])
        await stand.metrics.finish()
        assert stand.last("by_level_total", level="info") == 5001.0

    asyncio.run(scenario())


def test_too_much_at_once_is_skipped_and_counted_for_each_rule() -> None:
    async def scenario() -> None:
        stand = Stand(ALL, BY_LEVEL)
        piece = "x" * (QUEUE_BYTES // 4)
        for _ in range(6):
            stand.store({"level": piece})
        assert stand.metrics.queued <= QUEUE_BYTES
        skipped = stand.counted("streamgauge_event_metric_skipped_total", metric="all_total", reason="overload")
        assert skipped == stand.counted("streamgauge_event_metric_skipped_total", metric="by_level_total") == 3
        await stand.metrics.finish()
        assert stand.last("all_total") == 3.0
        assert stand.counted("streamgauge_event_metric_skipped_total", reason="too_large") == 3

    asyncio.run(scenario())


def test_an_unchanged_rule_keeps_its_counts_and_one_that_goes_ends_its_series() -> None:
    async def scenario() -> None:
        stand = Stand(ALL, BY_LEVEL)
        stand.store({"level": "info"})
        await stand.metrics.finish()
        stand.metrics.apply([ALL])
        stand.store({"level": "info"})
        stand.clock.jump(1000)
        await stand.metrics.finish()
        assert stand.last("all_total") == 2.0
        ended = stand.last("by_level_total", level="info")
        assert ended is not None
        assert ended != ended  # a stale marker
        stand.metrics.apply([])
        stand.store({"level": "info"})
        assert stand.metrics.queued == 0
        stand.clock.jump(1000)
        await stand.metrics.finish()
        rounds = stand.sink.appends
        await stand.metrics.finish()
        assert stand.sink.appends == rounds

    asyncio.run(scenario())


def test_refused_label_sets_are_counted() -> None:
    async def scenario() -> None:
        stand = Stand(BY_LEVEL)
        stand.store({"level": "x" * 70_000}, {"level": "info"})
        await stand.metrics.finish()
        name = "streamgauge_event_metric_label_sets_refused_total"
        assert stand.counted(name, metric="by_level_total") == 1
        assert stand.last("by_level_total", level="info") == 1.0

    asyncio.run(scenario())
