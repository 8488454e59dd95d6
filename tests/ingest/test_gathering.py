"""Appends that come together, into a sink that keeps everything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Overloaded
from streamgauge.ingest.gathering import MAX_ROWS, GatheringSink
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import key_of
from streamgauge.testing import MemorySink
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Noting(MemorySink):
    """Refuses batches with a sample of one value."""

    refused = -1.0

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        if self.refused in batch.values:
            self.appends += 1
            raise Overloaded("not this one", retry_after=1)
        await super().append(batch, metadata)


class Several:
    """Who fetch a batch each, decode it, and then append it."""

    def __init__(self, seconds: float = 3600.0) -> None:
        self.turns = Turns(ManualClock())
        self.sink = Noting()
        self.came = 0  # who has something to append
        self.gathering = GatheringSink(self.sink, self.turns, seconds)
        self.series = self.gathering.resolve(key_of({"__name__": "a"}))

    async def one(self, value: float, rows: int = 1) -> None:
        self.turns.expected += 1
        await asyncio.sleep(0)
        await self.turns.take(lambda: None)
        self.turns.expected -= 1
        self.came += 1
        batch = SampleBatch(np.full(rows, self.series, np.uint32), np.full(rows, 1), np.full(rows, value))
        await self.gathering.append(batch, (Metadata(f"a{value}", "gauge", ""),))

    def start(self, values: Sequence[float], rows: int = 1) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.one(value, rows)) for value in values]

    @property
    def stored(self) -> list[float]:
        return [value for batch in self.sink.batches for value in batch.values.tolist()]


async def test_what_comes_together_is_one_append() -> None:
    several = Several()
    await asyncio.gather(*several.start([1, 2, 3]))
    assert several.sink.appends == 1
    assert several.stored == [1, 2, 3]
    assert list(several.sink.metadata) == ["a1", "a2", "a3"]


async def test_who_comes_alone_does_not_wait() -> None:
    several = Several()
    for value in (1, 2):
        await several.one(value)
        assert several.sink.appends == value


async def test_nobody_fails_with_another() -> None:
    several = Several()
    several.sink.refused = 2
    outcomes = await asyncio.gather(*several.start([1, 2, 3]), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Overloaded, type(None)]
    assert several.stored == [1, 3]


async def test_who_gives_up_takes_nobody_along() -> None:
    several = Several()
    several.turns.expected = 1
    first, second = several.start([1, 2])
    await until(lambda: several.came == 2)  # both wait for a third one
    first.cancel()
    several.turns.expected = 0
    await several.one(3)
    await second
    assert first.cancelled()
    assert several.stored == [1, 2, 3]


async def test_who_is_expected_and_does_not_come_is_not_waited_for_without_end() -> None:
    several = Several(seconds=0.0)
    several.turns.expected = 1
    await asyncio.gather(*several.start([1, 2]))
    assert several.sink.appends == 1
    assert several.stored == [1, 2]


async def test_what_is_put_together_is_bounded() -> None:
    several = Several()
    await asyncio.gather(*several.start([1, 2, 3, 4], MAX_ROWS // 2))
    assert several.sink.appends == 2
    assert several.stored == [value for value in (1, 2, 3, 4) for _ in range(MAX_ROWS // 2)]


async def test_what_is_large_by_itself_is_appended_all_the_same() -> None:
    several = Several()
    await asyncio.gather(*several.start([1, 2, 3], MAX_ROWS + 1))
    assert several.sink.appends == 3
    assert len(several.stored) == 3 * (MAX_ROWS + 1)


async def test_a_batch_is_begun_at_once_only_where_nothing_is_to_be_gathered() -> None:
    several = Several()
    batch = SampleBatch(np.full(1, several.series, np.uint32), np.full(1, 1), np.full(1, 2.0))
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    with several.turns.expecting():
        assert not several.gathering.begin(batch, told.set_result)
    assert several.gathering.begin(batch, told.set_result, (Metadata("a", "gauge", ""),))
    assert await told is None
    assert several.sink.samples(__name__="a") == [(1, 2.0)]
    assert list(several.sink.metadata) == ["a"]
