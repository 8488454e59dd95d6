"""Appends that come together, into a sink that keeps everything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from streamgauge.errors import Overloaded
from streamgauge.ingest.gathering import MAX_APPENDS, MAX_ROWS, GatheringSink
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch
from streamgauge.model.labels import key_of
from streamgauge.testing import MemorySink

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
    """Who decodes a batch in a turn, and then appends it."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.sink = Noting()
        self.gathering = GatheringSink(self.sink, self.turns)
        self.series = self.gathering.resolve(key_of({"__name__": "a"}))

    async def one(self, value: float, rows: int = 1) -> None:
        await self.turns.take(lambda: None)
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
    first, second = several.start([1, 2])

    def give_up() -> None:
        if several.gathering.waiting:
            first.cancel()
        else:
            asyncio.get_running_loop().call_soon(give_up)

    give_up()
    await second
    assert first.cancelled()
    assert several.stored == [1, 2]


async def test_others_that_decode_are_not_waited_for_without_end() -> None:
    several = Several()
    turns = 0

    async def decode() -> None:
        nonlocal turns
        while True:
            await several.turns.take(lambda: None)
            turns += 1

    others = asyncio.create_task(decode())
    await several.one(1)
    assert several.stored == [1]
    assert turns < 3 * MAX_APPENDS
    others.cancel()


@pytest.mark.parametrize(
    ("count", "rows", "appends"),
    [(2 * MAX_APPENDS, 1, 2), (4, MAX_ROWS // 2, 2)],
)
async def test_what_is_put_together_is_bounded(count: int, rows: int, appends: int) -> None:
    several = Several()
    await asyncio.gather(*several.start(list(range(count)), rows))
    assert several.sink.appends == appends
    assert several.stored == [value for value in range(count) for _ in range(rows)]
