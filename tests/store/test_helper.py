"""The helper process: results, errors, deaths and its end."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

import streamgauge
from streamgauge.errors import Corrupt, StorageError
from streamgauge.store import fs
from streamgauge.store.helper import HelperProcess


def with_helper(test: Callable[[HelperProcess], Awaitable[None]]) -> None:
    async def run() -> None:
        helper = HelperProcess()
        try:
            await test(helper)
        finally:
            await helper.stop()

    asyncio.run(run())


def test_results_and_errors_come_back_and_one_process_serves_until_it_is_closed(tmp_path: Path) -> None:
    async def test(helper: HelperProcess) -> None:
        assert await helper.run(operator.add, 1, 2) == 3
        (tmp_path / "file").write_bytes(b"abc")
        with pytest.raises(Corrupt, match="has 3 bytes"):
            await helper.run(fs.read_file, tmp_path / "file", 2)
        with pytest.raises(ZeroDivisionError):
            await helper.run(operator.truediv, 1, 0)
        with pytest.raises(StorageError, match="has no word for"):
            await helper.run(threading.Lock)
        first = await helper.run(os.getpid)
        assert first == await helper.run(os.getpid) != os.getpid()
        await helper.close()
        assert not psutil.pid_exists(first)
        assert await helper.run(os.getpid) != first

    with_helper(test)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL to tell apart")
def test_a_death_is_an_error_and_the_next_run_has_another_process() -> None:
    async def test(helper: HelperProcess) -> None:
        first = await helper.run(os.getpid)
        with pytest.raises(StorageError, match="died"):
            await helper.run(os.kill, first, signal.SIGKILL)
        assert await helper.run(os.getpid) != first

    with_helper(test)


def test_a_stop_waits_for_nothing() -> None:
    async def test(helper: HelperProcess) -> None:
        await helper.run(os.getpid)
        endless = asyncio.ensure_future(helper.run(time.sleep, 3600))
        await asyncio.sleep(0)
        await helper.stop()
        with pytest.raises(StorageError):
            await endless

    asyncio.run(in_time(test))


async def in_time(test: Callable[[HelperProcess], Awaitable[None]]) -> None:
    await asyncio.wait_for(test(HelperProcess()), 30)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_it_leaves_signals_to_the_server() -> None:
    async def test(helper: HelperProcess) -> None:
        first = await helper.run(os.getpid)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(first, number)
        assert await helper.run(os.getpid) == first

    with_helper(test)


FORGETFUL = """
import asyncio, operator
from streamgauge.store.helper import HelperProcess

async def main():
    helper = HelperProcess()
    print(await helper.run(operator.add, 1, 2))

asyncio.run(main())
"""


def test_a_program_that_forgets_to_stop_it_ends_nevertheless() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL],
        env={**os.environ, "PYTHONPATH": str(Path(streamgauge.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
