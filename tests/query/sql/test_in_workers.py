"""SQL in real workers: answered there, stopped there, and no danger to anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from streamgauge.query.pool import WorkerPool
from streamgauge.query.requests import Job, SqlQuery
from streamgauge.testing import MemoryEvents, MemorySnapshot, MemorySource

SNAPSHOT = MemorySnapshot(MemorySource.of([], MemoryEvents.of([{"level": "ERROR"}, {"level": "INFO"}])))


def take() -> tuple[MemorySnapshot, Callable[[], None]]:
    return SNAPSHOT, lambda: None


async def rows(pool: WorkerPool, query: str) -> Any:
    return json.loads(await pool.read(Job(SqlQuery(query))))["data"]["rows"]


def test_a_query_is_answered_by_a_worker() -> None:
    async def test() -> None:
        pool = WorkerPool(take, workers=1)
        await pool.start()
        try:
            for _ in range(2):
                assert await rows(pool, "SELECT payload->>'level' FROM events ORDER BY 1") == [["ERROR"], ["INFO"]]
        finally:
            await pool.close()

    asyncio.run(test())
