"""Starting worker processes before there is a pool that asks for them. Real processes."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from streamgauge.query.pool import WorkerPool
from streamgauge.query.process import WorkerStarter
from streamgauge.testing import Trouble


def workers(mine: psutil.Process) -> list[psutil.Process]:
    return [child for child in mine.children() if "spawn_main" in " ".join(child.cmdline())]


def test_workers_that_were_started_ahead_are_given_first() -> None:
    async def main() -> None:
        mine, starter = psutil.Process(), WorkerStarter()
        starter.start_ahead(1)
        first = await starter.start()
        assert [worker.pid for worker in workers(mine)] == [first.pid]
        pool = WorkerPool(lambda: (Trouble(), lambda: None), starter=starter, workers=1)
        starter.start_ahead(2)
        await pool.start()
        assert len(workers(mine)) == 3, "the pool has started none of its own"
        await first.kill()
        await pool.close()
        assert workers(mine) == []

    asyncio.run(main())


def test_closing_ends_workers_that_nobody_asked_for() -> None:
    async def main() -> None:
        mine, starter = psutil.Process(), WorkerStarter()
        starter.start_ahead(2)
        taken = await starter.start()
        assert workers(mine) != []
        await taken.kill()
        await starter.close()
        assert workers(mine) == []

    asyncio.run(main())


def test_one_that_is_ready_when_nobody_wants_it_any_more_is_ended() -> None:
    async def main() -> None:
        mine, starter = psutil.Process(), WorkerStarter()
        starter.start_ahead(1)
        (ahead,) = starter._ahead
        asking = asyncio.create_task(starter.start())
        ahead.add_done_callback(lambda _: asking.cancel())
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not ahead.cancelled()
        assert workers(mine) == []
        await starter.close()

    asyncio.run(main())


def test_one_that_cannot_start_is_told_to_who_asks() -> None:
    async def main() -> None:
        starter = WorkerStarter(("no.such.module",))
        starter.start_ahead(1)
        with pytest.raises(ChildProcessError, match="could not start"):
            await starter.start()
        await starter.close()

    asyncio.run(main())
