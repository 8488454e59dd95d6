from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import QueryCanceled, QueryFailed
from streamgauge.query.spool import MEMORY_BYTES, PATIENCE, SLOWEST_READER, AnswerStream, SpoolSpace

CHUNK = 256 << 10


class Setting:
    """A stream and how often its client gave it up."""

    def __init__(self, directory: Path | None) -> None:
        self.clock = ManualClock()
        self.closed = 0
        self.space = SpoolSpace()
        self.stream = AnswerStream(self.clock, self.on_close, self.space, directory)

    def on_close(self) -> None:
        self.closed += 1

    async def put(self, numbers: range) -> None:
        for number in numbers:
            await self.stream.put(chunk(number))

    async def expect(self, numbers: range) -> None:
        """Read exactly these chunks, however they are cut."""
        expected = b"".join(map(chunk, numbers))
        got = b""
        while len(got) < len(expected):
            got += await anext(self.stream)
        assert got == expected


def chunk(number: int) -> bytes:
    return number.to_bytes(4, "little") * (CHUNK // 4)


def run(test: Callable[[Setting], Coroutine[Any, Any, None]], directory: Path | None = None) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test(Setting(directory))

    asyncio.run(main())


IN_MEMORY = range(MEMORY_BYTES // CHUNK)
MORE = range(IN_MEMORY.stop, IN_MEMORY.stop + 20)


def test_what_is_beyond_memory_goes_to_a_file_and_comes_back_in_order(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        await setting.put(IN_MEMORY)
        await setting.put(MORE)
        await setting.expect(range(10))
        await setting.put(range(MORE.stop, 100))  # memory has room again, but these come later
        setting.stream.finish()
        await setting.expect(range(10, 100))
        with pytest.raises(StopAsyncIteration):
            await anext(setting.stream)
        await setting.stream.aclose()
        assert setting.closed == 0

    run(test, tmp_path)


def test_a_client_that_caught_up_is_served_from_memory_again(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        await setting.put(IN_MEMORY)
        await setting.put(MORE)
        await setting.expect(range(MORE.stop))
        await asyncio.to_thread(tmp_path.rmdir)  # no file can be made any more; the one there is has no name
        await setting.put(range(100, 110))
        setting.stream.finish()
        await setting.expect(range(100, 110))
        with pytest.raises(StopAsyncIteration):
            await anext(setting.stream)

    run(test, tmp_path)


def test_a_client_that_is_early_waits() -> None:
    async def test(setting: Setting) -> None:
        first = asyncio.ensure_future(anext(setting.stream))
        await asyncio.sleep(0)
        assert not first.done()
        await setting.stream.put(b"a")
        assert await first == b"a"
        end = asyncio.ensure_future(anext(setting.stream))
        await asyncio.sleep(0)
        setting.stream.finish()
        with pytest.raises(StopAsyncIteration):
            await end

    run(test)


def test_an_answer_that_failed_raises_at_once_whatever_is_left_of_it(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        await setting.put(IN_MEMORY)
        await setting.put(MORE)
        await setting.expect(range(1))
        setting.stream.fail(QueryFailed("the worker died"))
        for _ in range(2):
            with pytest.raises(QueryFailed, match="the worker died"):
                await anext(setting.stream)
        await setting.put(range(3))  # the worker's side need not know
        await setting.stream.aclose()
        assert setting.closed == 0

    run(test, tmp_path)


def test_closing_early_is_told_once(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        await setting.put(IN_MEMORY)
        await setting.put(MORE)
        await setting.stream.aclose()
        await setting.stream.aclose()
        assert setting.closed == 1
        with pytest.raises(QueryCanceled):
            await anext(setting.stream)

    run(test, tmp_path)


def test_a_client_slower_than_the_slowest_is_dropped() -> None:
    async def test(setting: Setting) -> None:
        await setting.put(IN_MEMORY)
        allowed = PATIENCE + CHUNK / SLOWEST_READER
        await setting.expect(range(1))
        await asyncio.sleep(0)
        await setting.clock.advance(allowed - 0.1)
        await setting.expect(range(1, 2))
        await asyncio.sleep(0)
        await setting.clock.advance(allowed - 0.1)
        assert setting.closed == 0
        await setting.clock.advance(0.2)
        assert setting.closed == 1
        with pytest.raises(QueryCanceled, match="less than 10000 bytes a second"):
            await anext(setting.stream)

    run(test)


def test_a_client_that_has_everything_may_take_its_time() -> None:
    async def test(setting: Setting) -> None:
        await setting.stream.put(b"all")
        setting.stream.finish()
        assert await anext(setting.stream) == b"all"
        await setting.clock.advance(3600)
        with pytest.raises(StopAsyncIteration):
            await anext(setting.stream)

    run(test)


def test_a_client_that_waits_for_a_slow_query_is_not_slow() -> None:
    async def test(setting: Setting) -> None:
        await setting.stream.put(b"a")
        assert await anext(setting.stream) == b"a"
        following = asyncio.ensure_future(anext(setting.stream))
        await asyncio.sleep(0)
        await setting.clock.advance(3600)
        await setting.stream.put(b"b")
        assert await following == b"b"
        await setting.stream.aclose()

    run(test)


def test_a_file_that_cannot_be_written_is_an_error_of_the_query(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        await setting.put(IN_MEMORY)
        with pytest.raises(QueryFailed, match="cannot be kept"):
            await setting.put(MORE)
        await setting.stream.aclose()

    run(test, tmp_path / "absent")


def test_all_answers_share_the_disk(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        setting.space.disk = 3 * CHUNK
        await setting.put(IN_MEMORY)
        await setting.put(MORE[:3])
        assert setting.space.disk == 0
        with pytest.raises(QueryFailed, match="kept for slow readers already"):
            await setting.put(MORE[3:4])
        await setting.stream.aclose()
        assert setting.space.disk == 3 * CHUNK

    run(test, tmp_path)


def test_all_answers_share_the_memory(tmp_path: Path) -> None:
    async def test(setting: Setting) -> None:
        other = AnswerStream(setting.clock, setting.on_close, setting.space, tmp_path)
        setting.space.memory = 4 * CHUNK
        await setting.put(range(4))
        await other.put(chunk(0))
        assert setting.space.memory == 0
        assert setting.space.disk < SpoolSpace().disk
        setting.stream.finish()
        await setting.expect(range(4))
        assert setting.space.memory == 4 * CHUNK
        assert await anext(other) == chunk(0)
        await other.put(chunk(1))
        assert setting.space.memory == 3 * CHUNK
        other.fail(QueryFailed("died"))
        assert setting.space == SpoolSpace(memory=4 * CHUNK)
        await other.aclose()

    run(test, tmp_path)


def test_an_answer_that_is_whole_stays_whole_when_its_worker_dies_later() -> None:
    async def test(setting: Setting) -> None:
        await setting.put(range(2))
        setting.stream.finish()
        setting.stream.fail(QueryFailed("died"))
        await setting.expect(range(2))
        with pytest.raises(StopAsyncIteration):
            await anext(setting.stream)

    run(test)
