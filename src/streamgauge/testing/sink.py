"""A sink that keeps what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamgauge.errors import StreamgaugeError
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import key_of, labels_of
from streamgauge.model.sink import Done


class MemorySink:
    """A `model.sink.Sink` that keeps everything in memory.

    window: what `admitted` answers.
    failure: raised by `append`, which then stores nothing; None stores.
    refuse_series: raised by `resolve` for a key that is new.
    """

    def __init__(self, window: tuple[int, int] = (-(1 << 62), 1 << 62)) -> None:
        self.window = window
        self.failure: StreamgaugeError | None = None
        self.refuse_series: StreamgaugeError | None = None
        self.appends = 0
        self.keys: list[bytes] = []
        self.metadata: dict[str, Metadata] = {}
        self.batches: list[SampleBatch] = []
        self._ids: dict[bytes, int] = {}
        self._generation = 0

    def resolve(self, key: bytes) -> int:
        known = self._ids.get(key)
        if known is None:
            if self.refuse_series is not None:
                raise self.refuse_series
            known = self._ids[key] = len(self.keys)
            self.keys.append(key)
        return known

    @property
    def generation(self) -> int:
        return self._generation

    def prune(self) -> None:
        """Forget every series, as a store does with those that have no data any more. Ids are not given again."""
        self._ids.clear()
        self._generation += 1

    def admitted(self) -> tuple[int, int]:
        return self.window

    def begin(self, batch: SampleBatch, done: Done, metadata: Sequence[Metadata] = ()) -> bool:
        self._check(batch)
        asyncio.get_running_loop().call_soon(self._end, batch, done, metadata, self.failure)
        return True

    def _end(
        self, batch: SampleBatch, done: Done, metadata: Sequence[Metadata], failure: StreamgaugeError | None
    ) -> None:
        if failure is None:
            self._keep(batch, metadata)
        done(failure)

    def _keep(self, batch: SampleBatch, metadata: Sequence[Metadata]) -> None:
        self.appends += 1
        self.batches.append(batch)
        self.metadata.update((one.metric, one) for one in metadata)

    def _check(self, batch: SampleBatch) -> None:
        for series in set(batch.series.tolist()):
            assert self._ids.get(self.keys[series]) == series, "an id of an earlier generation"

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        failure = self.failure
        self._check(batch)
        await asyncio.sleep(0)
        if failure is not None:
            raise failure
        self._keep(batch, metadata)

    def is_described(self, metric: str) -> bool:
        return metric in self.metadata

    async def bulk_room(self) -> None:
        if self.failure is not None:
            raise self.failure

    def samples(self, **labels: str) -> list[tuple[int, float]]:
        """(time, value) of the series with exactly these labels, by time; a later append wins."""
        return [(time, value) for time, (value, _) in sorted(self._rows(labels).items())]

    def bits(self, **labels: str) -> list[tuple[int, int]]:
        """(time, bits of the value as int64), as `samples`."""
        return [(time, bits) for time, (_, bits) in sorted(self._rows(labels).items())]

    def series(self) -> list[dict[str, str]]:
        """Labels of every series that has a sample."""
        used = {series for batch in self.batches for series in batch.series.tolist()}
        return [labels_of(self.keys[series]) for series in sorted(used)]

    def _rows(self, labels: dict[str, str]) -> dict[int, tuple[float, int]]:
        wanted = key_of(labels)
        rows: dict[int, tuple[float, int]] = {}
        for batch in self.batches:
            columns = (
                batch.series.tolist(),
                batch.times.tolist(),
                batch.values.tolist(),
                batch.values.view("i8").tolist(),
            )
            for series, time, value, bits in zip(*columns, strict=True):
                if self.keys[series] == wanted:
                    rows[time] = (value, bits)
        return rows
