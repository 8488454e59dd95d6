"""Metrics made of events: what is stored is looked at by all rules, and sampled.

    store ─> queue ─> parsed once, looked at by each rule ─> counts ─> a round of samples ─> store

The store only puts what it has stored into the queue, and not even that while there is no rule. The rest is done in
turns of a millisecond or so, after the events were acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from streamgauge.clock import Clock
from streamgauge.derive.accumulator import Accumulator
from streamgauge.derive.rule import EventMetric
from streamgauge.ingest.sampling import Recorder, Reporter, rounds
from streamgauge.live.event_rows import EventRows
from streamgauge.live.projection import Projection
from streamgauge.model.batch import SampleBatch
from streamgauge.model.events import EventBatch
from streamgauge.model.sink import Sink
from streamgauge.stats import Reading, Stats

SOURCE = "event_metrics"
JOB = "events"

QUEUE_BYTES = 32 << 20
"""Text of events that wait to be looked at: a quarter of a second of the fastest ingest."""
BATCH_BYTES = 512
"""That a batch takes besides its text."""
TURN_EVENTS = 512
TURN_BYTES = 256 << 10
"""Looked at in one turn. To find what counts of an event takes a microsecond or two, and to parse so much text a
millisecond."""


class EventMetrics:
    """Implements model.listener.Listener. Used on the event loop. instance: the label of all samples."""

    def __init__(self, sink: Sink, stats: Stats, clock: Clock, instance: str) -> None:
        self._clock = clock
        self._skipped = stats.event_metric_skipped
        self._refused = stats.event_metric_label_sets_refused
        self._reporter = Reporter(Recorder(sink, {"job": JOB, "instance": instance}), stats, SOURCE, "event metrics")
        self._accumulators: list[Accumulator] = []
        self._projection: Projection | None = None
        self._queue: deque[EventBatch] = deque()
        self.queued = 0  # bytes of it
        self._turns: deque[tuple[Accumulator, EventRows]] = deque()  # what was taken from it and is yet to be done
        self._news = asyncio.Event()
        self._idle = True  # nothing was sampled in the last round

    def apply(self, rules: Sequence[EventMetric]) -> None:
        """The rules from now on. One that was there before, unchanged, keeps its counts; others begin with none."""
        kept = {each.rule: each for each in self._accumulators}
        self._accumulators = [kept[rule] if rule in kept else Accumulator(rule) for rule in rules]
        self._projection = projection_of(rules)

    # ---- from the store ---------------------------------------------------------------------------------------------

    def stored_samples(self, commit: int, batch: SampleBatch) -> None:
        pass

    def stored_events(self, commit: int, batches: Sequence[EventBatch]) -> None:
        if not self._accumulators:
            return
        for batch in batches:
            if len(batch):
                self._queue.append(batch)
                self.queued += _size(batch)
        while self.queued > QUEUE_BYTES and len(self._queue) > 1:
            self._skip(self._next())
        self._news.set()

    def _next(self) -> EventBatch:
        batch = self._queue.popleft()
        self.queued -= _size(batch)
        return batch

    def _skip(self, batch: EventBatch) -> None:
        for each in self._accumulators:
            self._skipped.labels(each.rule.name, "overload").inc(len(batch))

    # ---- into the counts --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Counts and samples, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count())
            group.create_task(self._sample())

    async def finish(self) -> None:
        """Count what waits, and sample a last time. When `run` has ended."""
        await self._look()
        await self.sample(self._clock.now_ms())

    async def _count(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._look()

    async def _look(self) -> None:
        """Count what waits, in turns."""
        while self._queue or self._turns:
            if not self._turns:
                parts = _parts(EventRows.of(self._taken()), self._projection)
                self._turns.extend((each, rows) for rows in parts for each in self._accumulators)
            if self._turns:
                self._add(*self._turns.popleft())
            await asyncio.sleep(0)

    def _taken(self) -> list[EventBatch]:
        """As much of the queue as a turn takes: a batch at the least."""
        batches = [self._next()]
        rows, size = len(batches[0]), _size(batches[0])
        while self._queue and rows < TURN_EVENTS and size < TURN_BYTES:
            batches.append(self._next())
            rows += len(batches[-1])
            size += _size(batches[-1])
        return batches

    def _add(self, accumulator: Accumulator, rows: EventRows) -> None:
        left_out, name = accumulator.add(rows), accumulator.rule.name
        for reason, count in left_out.reasons.items():
            if count:
                self._skipped.labels(name, reason).inc(count)
        if left_out.label_sets:
            self._refused.labels(name).inc(left_out.label_sets)

    # ---- into the store ---------------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        async for time in rounds(self._clock):
            await self.sample(time)

    async def sample(self, time: int) -> None:
        """One round at `time` (ms). The round after the last rule has gone marks its series stale."""
        if self._accumulators or not self._idle:
            self._idle = not self._accumulators
            await self._reporter.report([each.family() for each in self._accumulators], time)

    def readings(self) -> Iterator[Reading]:
        sets: dict[tuple[str, ...], float] = {(each.rule.name,): each.label_sets for each in self._accumulators}
        name, text = "streamgauge_event_metric_label_sets", "Sets of labels that a rule of event_metrics has."
        yield Reading(name, "gauge", text, sets, ("metric",))
        name, text = "streamgauge_event_metric_queue_bytes", "Stored, and not yet looked at by event_metrics."
        yield Reading.of(name, "gauge", text, self.queued)


def _size(batch: EventBatch) -> int:
    size: int = batch.payloads.nbytes
    return size + BATCH_BYTES


def projection_of(rules: Sequence[EventMetric]) -> Projection | None:
    """Of all fields that rules look at. None where payloads have to be parsed whole."""
    paths = {path for rule in rules for path in rule.paths}
    try:
        return Projection(paths) if paths else None
    except ValueError:
        return None


def _parts(rows: EventRows, projection: Projection | None) -> Iterator[EventRows]:
    """What one rule looks at in one turn: parts of bounded size, of an event at the least."""
    ends = np.cumsum(rows.sizes)
    start = 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + TURN_BYTES, "right"))
        stop = min(max(fitting, start + 1), start + TURN_EVENTS)
        yield rows.slice(start, stop, projection)
        start = stop
