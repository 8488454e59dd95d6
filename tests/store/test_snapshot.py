"""Snapshots: what a reading process keeps from one to the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from streamgauge.clock import ManualClock
from streamgauge.model.batch import SampleBatch
from streamgauge.model.labels import key_of
from streamgauge.model.source import NoMeter
from streamgauge.store.helper import InThread
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.snapshot import StoreCache
from streamgauge.store.store import StoreSettings

NOW = 1_700_000_000_000


def test_a_reader_lets_go_of_blocks_that_are_gone(tmp_path: Path) -> None:
    """As long as it has them open their space on the disk is not free, and Windows does not remove them."""

    async def life() -> None:
        runner, kept = InThread(), dict[str, object]()
        settings = StoreSettings(retention=0)
        async with open_store(tmp_path, settings, ManualClock(NOW), runner, runner, Progress()) as (store, maintenance):
            series = np.array([store.resolve(key_of({"__name__": "up"}))], np.uint32)
            for time in range(3):
                await store.append(SampleBatch(series, np.array([NOW + time]), np.zeros(1)))
                store.head.seal()
                await maintenance.flush(1 << 20)
            before, release = store.snapshot()
            before.open(kept).select([], NOW, NOW + 10, NoMeter())
            release()
            (cache,) = kept.values()
            assert isinstance(cache, StoreCache)
            assert len(cache.blocks.open_blocks) == 3
            await maintenance.compact_fully()
            after, release = store.snapshot()
            after.open(kept)
            assert cache.blocks.open_blocks == []
            release()
            cache.blocks.close()

    asyncio.run(life())
