"""SQL in real workers: answered there, stopped there, and no danger to anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamgauge.errors import QueryCanceled
from streamgauge.query.budget import Limits
from streamgauge.query.pool import WorkerPool
from streamgauge.query.process import WorkerStarter
from streamgauge.query.requests import Job, SqlQuery
from streamgauge.testing import MemoryEvents, MemorySnapshot, MemorySource

pytestmark = pytest.mark.usefixtures("forking_workers")

SNAPSHOT = MemorySnapshot(MemorySource.of([], MemoryEvents.of([{"level": "ERROR"}, {"level": "INFO"}] * 5_000)))
TIGHT = Limits(bytes=256 << 20, seconds=1)
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c"


def run(test: Callable[[WorkerPool], Awaitable[None]]) -> None:
    async def running() -> None:
        pool = WorkerPool(lambda: (SNAPSHOT, lambda: None), workers=1, starter=WorkerStarter(memory_limit=1 << 30))
        await pool.start()
        try:
            await test(pool)
        finally:
            await pool.close()

    asyncio.run(running())


async def answer(pool: WorkerPool, query: str, limits: Limits = TIGHT) -> Any:
    got = await pool.run(Job(SqlQuery(query), limits))
    return json.loads(b"".join([chunk async for chunk in got.chunks]))


async def still_answers(pool: WorkerPool) -> None:
    found = await answer(pool, "SELECT count(*) FROM events WHERE payload.level = 'ERROR'", Limits())
    assert found["data"]["rows"] == [[5_000]]


def test_a_worker_answers_one_query_after_the_other() -> None:
    async def test(pool: WorkerPool) -> None:
        await still_answers(pool)
        await still_answers(pool)
        assert pool.statistics().started == 2  # one of them is for small queries

    run(test)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT length(repeat('x', 2000000000))",
        "SELECT string_agg(repeat('x', 100000), '') FROM range(100000)",
        "SELECT list_aggregate(range(3000000000), 'sum')",
        "SELECT list(range) FROM range(1000000000)",
    ],
)
def test_a_query_cannot_use_all_the_memory(query: str) -> None:
    async def test(pool: WorkerPool) -> None:
        refused = await answer(pool, query, Limits(bytes=256 << 20))
        assert refused["errorType"] == "execution"
        assert "of memory" in refused["error"]
        await still_answers(pool)

    run(test)


@pytest.mark.parametrize(
    "query",
    [
        ENDLESS,
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT lpad('', 2000000000, 'x')",  # hears of no interrupt
        "SELECT count(*) FROM events a, events b WHERE a.payload.level || b.payload.level LIKE '%' || a.payload::TEXT",
    ],
)
def test_a_query_cannot_run_for_ever(query: str) -> None:
    async def test(pool: WorkerPool) -> None:
        stopped = await answer(pool, query)
        assert stopped["errorType"] == "timeout"
        await still_answers(pool)

    run(test)


def test_a_query_that_is_nested_too_deeply_is_refused() -> None:
    async def test(pool: WorkerPool) -> None:
        for query in ("SELECT " + "(" * 5_000 + "1" + ")" * 5_000, "SELECT " + "1+" * 20_000 + "1"):
            refused = await answer(pool, query, Limits())
            assert refused["error"] == "Max expression depth limit of 1000 exceeded."
        await still_answers(pool)
        assert pool.statistics().died == 0

    run(test)


def test_a_query_is_listed_and_can_be_cancelled() -> None:
    async def test(pool: WorkerPool) -> None:
        asking = asyncio.create_task(answer(pool, ENDLESS, Limits()))
        await asyncio.sleep(0)
        [listed] = pool.running()
        assert listed.text == ENDLESS
        assert pool.cancel(listed.id)
        assert (await asking)["errorType"] == QueryCanceled.kind
        await still_answers(pool)
        assert pool.statistics().canceled == 1

    run(test)
