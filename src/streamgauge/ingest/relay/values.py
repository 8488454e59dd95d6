"""From what relays answer to columns in the store.

What comes in a tenth of a second, from however many relays, and while the disk is busy, becomes one append. A series
is looked up once for each collector and name of a relay, and asked of the store again when that has pruned some.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.clock import Clock
from streamgauge.errors import BadInput, Overloaded, ReadOnly, StorageError, StreamgaugeError
from streamgauge.model.batch import SampleBatch
from streamgauge.model.labels import NAME, series_key
from streamgauge.model.sink import Sink
from streamgauge.stats import Stats
from streamgauge.wire.findings import Reason, no_room

SOURCE = "relay"

MAX_WAITING = 500_000
"""Values that wait for the disk. 5,000 relays of 20 stats bring 100,000 at once."""
NEW_AT_ONCE = 64
"""Series seen for the first time in one turn of the loop: some 30 µs each."""
GATHER_SECONDS = 0.1
"""From one append to the next. One costs a millisecond, whatever is in it, and thousands of relays answer evenly."""
_TURNS = 16
"""Of new series that go into one append."""
_ATTEMPTS = 3
_COLLECTOR_BYTES, _TAG_BYTES = 400, 300
"""Of the objects, whatever is in them; what is in them is kept as tag, as label and as text."""


@dataclass(eq=False, slots=True)
class Collector:
    """What a relay can be asked for. tags: as they came; labels: of its series, but for their names. items: what its
    series are known by to its connection. retired: the relay does not have it any more. size: bytes of memory,
    roughly."""

    name: bytes
    tags: tuple[bytes, ...]
    labels: tuple[tuple[bytes, bytes], ...]
    items: list[bytes] = field(default_factory=list)
    retired: bool = False
    size: int = field(init=False)
    _texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.size = _COLLECTOR_BYTES + 4 * len(self.name) + sum(_TAG_BYTES + 4 * len(tag) for tag in self.tags)

    @property
    def texts(self) -> tuple[str, ...]:
        """The tags as text."""
        if self._texts is None:
            self._texts = tuple(tag.decode(errors="replace") for tag in self.tags)
        return self._texts


@dataclass(eq=False, slots=True)
class Stat:
    """One series of a relay. number: its id in `generation` of the sink."""

    collector: Collector
    name: bytes
    key: bytes
    number: int = 0
    generation: int | None = None


@dataclass(eq=False, slots=True)
class _New:
    """A value of a series that was not seen before. into: where it is to be found from then on."""

    into: dict[bytes, Stat]
    item: bytes
    collector: Collector
    name: bytes
    time: int
    value: float


@dataclass(slots=True)
class _Waiting:
    stats: list[Stat] = field(default_factory=list)
    times: list[int] = field(default_factory=list)  # ms
    values: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)  # when these answers were asked for, monotonic


class RelayValues:
    """One for a server. `run` stores what `put` and `put_new` bring, one append at a time, in each `gather` seconds."""

    def __init__(self, sink: Sink, stats: Stats, clock: Clock, gather: float = GATHER_SECONDS) -> None:
        self._gather = gather
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._waiting = _Waiting()
        self._new: deque[_New] = deque()
        self._news = asyncio.Event()
        self._storing = asyncio.Lock()
        self._seconds = stats.histogram("relay_answer", "From asking a relay until its values are on disk.")
        self._stored = stats.ingested_samples.labels(SOURCE)

    @property
    def generation(self) -> int:
        """Of the sink."""
        return self._sink.generation

    def put(self, stats: Sequence[Stat], values: Sequence[float], asked: float | None) -> None:
        """Values that came just now, of one relay. asked: when it was asked for them, by the monotonic clock."""
        waiting = self._waiting
        if len(waiting.stats) + len(stats) > MAX_WAITING:
            self.refuse("overload", len(stats))
            return
        waiting.stats += stats
        waiting.values += values
        waiting.times += [self._clock.now_ms()] * len(stats)
        if asked is not None:
            waiting.asked.append(asked)
        self._news.set()

    def put_new(self, into: dict[bytes, Stat], item: bytes, collector: Collector, name: bytes, value: float) -> None:
        """A value of a series that is not in `into` yet; it will be, under `item`, if it can be stored."""
        if len(self._new) >= MAX_WAITING:
            self.refuse("overload")
            return
        self._new.append(_New(into, item, collector, name, self._clock.now_ms(), value))
        self._news.set()

    def refuse(self, reason: str, count: int = 1) -> None:
        self._stats.refused.labels(SOURCE, reason).inc(count)

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self.step()
            if not self._new:
                await self._clock.sleep(self._gather)

    async def step(self) -> None:
        """Store what waits, and of new series as many as some turns of the loop have time for."""
        async with self._storing:
            for _ in range(_TURNS):
                for _ in range(min(len(self._new), NEW_AT_ONCE)):
                    self._meet(self._new.popleft())
                if not self._new:
                    break
                self._news.set()
                await asyncio.sleep(0)
            waiting, self._waiting = self._waiting, _Waiting()
            if waiting.stats:
                await self._store(waiting)

    async def finish(self) -> None:
        """Store all that has come."""
        while self._new or self._waiting.stats or self._storing.locked():
            await self.step()

    def _meet(self, new: _New) -> None:
        stat = new.into.get(new.item)
        if stat is None:
            try:
                stat = Stat(new.collector, new.name, series_key([*new.collector.labels, (NAME, new.name)]))
            except BadInput:
                self.refuse(Reason.LABELS)
                return
            if not self._resolved(stat):
                return
            if not new.collector.retired:
                new.into[new.item] = stat
                new.collector.items.append(new.item)
        self._waiting.stats.append(stat)
        self._waiting.times.append(new.time)
        self._waiting.values.append(new.value)

    def _resolved(self, stat: Stat) -> bool:
        """Give it an id of the present generation. False, and counted, when there is none to have."""
        try:
            stat.number = self._sink.resolve(stat.key)
        except Overloaded as error:
            self.refuse(no_room(error))
            return False
        except StorageError:
            self.refuse("read_only")
            return False
        stat.generation = self._sink.generation
        return True

    async def _store(self, waiting: _Waiting) -> None:
        """An append that waited while series were pruned is made again, with the ids that they have then."""
        for attempt in range(_ATTEMPTS):
            generation = self._sink.generation
            batch = self._admitted(self._batch(waiting, generation))
            if not len(batch):
                return
            try:
                await self._sink.append(batch)
            except StreamgaugeError as error:
                if self._sink.generation != generation and attempt + 1 < _ATTEMPTS:
                    continue
                self.refuse(_reason(error), len(batch))
                return
            self._stored.inc(len(batch))
            now = self._clock.monotonic()
            for asked in waiting.asked:
                self._seconds.observe(now - asked)
            return

    def _admitted(self, batch: SampleBatch) -> SampleBatch:
        """Without values of times that are not taken: the clock was set while they waited."""
        oldest, newest = self._sink.admitted()
        if not len(batch) or (int(batch.times.min()) >= oldest and int(batch.times.max()) <= newest):
            return batch
        early, late = batch.times < oldest, batch.times > newest
        for reason, wrong in ((Reason.TOO_OLD, early), (Reason.TOO_NEW, late)):
            if wrong.any():
                self.refuse(reason, int(wrong.sum()))
        kept = ~(early | late)
        return SampleBatch(batch.series[kept], batch.times[kept], batch.values[kept])

    def _batch(self, waiting: _Waiting, generation: int) -> SampleBatch:
        ids = [stat.number if stat.generation == generation else -1 for stat in waiting.stats]
        numbers = np.array(ids, np.int64)
        for row in np.flatnonzero(numbers < 0).tolist():
            stat = waiting.stats[row]
            if stat.generation == self._sink.generation or self._resolved(stat):
                numbers[row] = stat.number
        kept = numbers >= 0
        times, values = np.array(waiting.times, np.int64), np.array(waiting.values, np.float64)
        return SampleBatch(numbers[kept].astype(np.uint32), times[kept], values[kept])


def _reason(error: StreamgaugeError) -> str:
    if isinstance(error, ReadOnly):
        return "read_only"
    return "storage" if isinstance(error, StorageError) else "overload"
