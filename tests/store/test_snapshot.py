"""Snapshots: what a reading process keeps from one to the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import QueryFailed
from streamgauge.model.batch import SampleBatch
from streamgauge.model.labels import key_of
from streamgauge.model.source import Matcher, MatchOp, NoMeter
from streamgauge.query.budget import Budget, Limits
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


def test_a_question_about_series_pays_for_their_labels_however_many_selectors_it_has(tmp_path: Path) -> None:
    async def life() -> None:
        runner, settings = InThread(), StoreSettings(retention=0)
        async with open_store(tmp_path, settings, ManualClock(NOW), runner, runner, Progress()) as (store, maintenance):
            keys = [key_of({"__name__": "m", "i": str(i), "odd": str(i % 2)}) for i in range(1000)]
            series = np.array([store.resolve(key) for key in keys], np.uint32)
            times = np.full(1000, NOW)
            await store.append(SampleBatch(series[:500], times[:500], np.zeros(500)))
            store.head.seal()
            await maintenance.flush(1 << 20)
            await store.append(SampleBatch(series[500:], times[500:], np.zeros(500)))
            snapshot, release = store.snapshot()
            source = snapshot.open(kept)
            every, odd = Matcher("__name__", MatchOp.EQUAL, "m"), Matcher("odd", MatchOp.EQUAL, "1")
            budget = Budget(Limits(bytes=30_000))
            frame = source.series([[every]] * 200 + [[odd]], NOW, NOW, budget)
            assert sorted(labels["i"] for labels in frame) == sorted(map(str, range(1000)))
            assert budget.bytes == 3 * 4 * 1000, "what is left is what the answer holds"
            named = source.series([[odd]], NOW, NOW, Budget(Limits(bytes=30_000)), ["i", "nothing"])
            assert [*named.columns] == ["i"]
            assert len(named) == 500
            for limit in (9_000, 11_000):  # to match, and to hold labels
                with pytest.raises(QueryFailed, match=f"more than {limit} bytes"):
                    source.series([[every]], NOW, NOW, Budget(Limits(bytes=limit)))
            with pytest.raises(QueryFailed, match="more than 999 samples"):
                source.select([every], NOW, NOW, Budget(Limits(samples=999)))
            budget = Budget(Limits())
            selection = source.select([every], NOW, NOW, budget)
            assert (budget.samples, budget.bytes) == (1000, 16 * 1000 + 3 * 4 * 1000)
            assert len(selection.labels) == 1000
            release()
        for cache in kept.values():
            assert isinstance(cache, StoreCache)
            cache.blocks.close()

    kept: dict[str, object] = {}
    asyncio.run(life())
