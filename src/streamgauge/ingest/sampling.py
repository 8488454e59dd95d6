"""Metrics that this server samples by itself: when, and how they become columns."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import BadInput, Overloaded, StreamgaugeError
from streamgauge.model.arrays import UInt32s, stale_marker
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import series_key
from streamgauge.model.sink import Sink
from streamgauge.stats import Family, Stats

_log = logging.getLogger(__name__)

EAGER_SECONDS = 60
"""So long after the start there is a round each second, so that rates show at once."""
INTERVAL_SECONDS = 15
SLICE_SERIES = 250
"""Looked up before others have a turn on the loop: a few milliseconds where all of them are new."""
_TOLERANCE_MS = 2
"""A round so little off its schedule takes the scheduled time: even intervals compress to almost nothing."""


async def rounds(clock: Clock) -> AsyncIterator[int]:
    """The time (ms) of each round, at that time: at once, each second of the first minute, then every 15 s.

    Rounds that a slow one made impossible are left out.
    """
    begun, time = clock.monotonic(), clock.now_ms()
    due = 0
    while True:
        yield time
        elapsed = clock.monotonic() - begun
        last = due
        while due <= elapsed:
            due += 1 if due < EAGER_SECONDS else INTERVAL_SECONDS
        await clock.sleep(due - elapsed)
        now, scheduled = clock.now_ms(), time + (due - last) * 1000
        time = scheduled if abs(now - scheduled) <= _TOLERANCE_MS else now


class Recorder:
    """Stores rounds of families under fixed labels, which a sample's own labels of the same name replace.

    A series that was in the last round and is not in this one gets a stale marker. Series ids are kept between rounds.
    """

    def __init__(self, sink: Sink, labels: Mapping[str, str]) -> None:
        self._sink = sink
        self._labels = dict(labels)
        self._generation: int | None = None
        self._ids: dict[tuple[str, tuple[tuple[str, str], ...]], int | None] = {}
        self._described: dict[str, Metadata] = {}
        self._last: UInt32s = np.empty(0, np.uint32)

    async def record(self, families: Iterable[Family], time: int) -> int:
        """Store one round taken at `time` (ms); the number of samples. Raises what the sink's append raises.

        Series that the store has no room for are left out.
        """
        taken = tuple(families)
        while True:
            self._renew()
            ids, values = await self._found(taken)
            if self._generation == self._sink.generation:  # else the ids are of a generation that ended meanwhile
                break
        described = {family.name: Metadata(family.name, family.type, family.help) for family in taken}
        metadata = {name: each for name, each in described.items() if self._described.get(name) != each}
        present = np.array(ids, np.uint32)
        gone = np.setdiff1d(self._last, present)
        batch = SampleBatch(
            np.concatenate((present, gone)),
            np.full(len(present) + len(gone), time, np.int64),
            np.concatenate((np.array(values, np.float64), stale_marker(len(gone)))),
        )
        await self._sink.append(batch, tuple(metadata.values()))
        self._last = present
        self._described |= metadata
        return len(present)

    def _renew(self) -> None:
        """Forget ids of a generation that has ended."""
        if self._generation != self._sink.generation:
            self._generation = self._sink.generation
            self._ids.clear()
            self._last = np.empty(0, np.uint32)

    async def _found(self, families: Sequence[Family]) -> tuple[list[int], list[float]]:
        """The ids and values of what can be stored."""
        ids: list[int] = []
        values: list[float] = []
        samples = itertools.chain.from_iterable(family.samples for family in families)
        for number, (name, labels, value) in enumerate(samples, 1):
            if (series := self._series(name, labels)) is not None:
                ids.append(series)
                values.append(value)
            if number % SLICE_SERIES == 0:
                await asyncio.sleep(0)
        return ids, values

    def _series(self, name: str, labels: tuple[tuple[str, str], ...]) -> int | None:
        """The id of a series; None when it cannot be stored."""
        known = self._ids.get((name, labels))
        if known is None:
            everything = {"__name__": name, **self._labels, **dict(labels)}
            try:
                key = series_key(
                    (one.encode(errors="replace"), text.encode(errors="replace")) for one, text in everything.items()
                )
                known = self._ids[name, labels] = self._sink.resolve(key)
            except (BadInput, Overloaded):
                return None
        return known


class Reporter:
    """Stores rounds of one source, called `what` in the log. A failure is counted, and logged when it begins and when
    it ends."""

    def __init__(self, recorder: Recorder, stats: Stats, source: str, what: str) -> None:
        self._recorder = recorder
        self._stats = stats
        self._source = source
        self._what = what
        self._failing = False

    async def report(self, families: Iterable[Family], time: int) -> bool:
        """Store one round taken at `time` (ms); whether it is stored."""
        try:
            stored = await self._recorder.record(families, time)
        except StreamgaugeError as error:
            self._stats.sampling_failures.labels(self._source).inc()
            if not self._failing:
                _log.warning("%s cannot be stored: %s", self._what, error.message)
            self._failing = True
            return False
        if self._failing:
            _log.info("%s can be stored again", self._what)
        self._failing = False
        self._stats.ingested_samples.labels(self._source).inc(stored)
        return True


def single(name: str, kind: str, text: str, value: float) -> Family:
    """A family of one sample without labels."""
    return Family(name, kind, text, ((name, (), value),))


def labelled(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Family:
    """A family of samples of the metric itself."""
    return Family(name, kind, text, tuple((name, tuple(labels.items()), value) for labels, value in samples))


Collect = Callable[[], Iterable[Family]]
"""Reads one kind of metrics. May block; runs on a thread."""
