"""An authority is asked as seldom as can be, and a cache that fails is in nobody's way."""

from __future__ import annotations

import asyncio

import pytest

from streamgauge.auth.answer_cache import PAUSE_SECONDS, AnswerCache
from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.clock import ManualClock
from streamgauge.errors import FetchFailed, NotReady, Unauthorized
from streamgauge.stats import Stats

pytestmark = pytest.mark.anyio


class Authority:
    """Gives one answer after the other, when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self) -> bytes:
        self.asked += 1
        number = self.asked
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return b"ok %d" % number


class Shared:
    """A cache that others use, too."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False
        self.calls = 0
        self.closed = False

    async def get(self, key: str) -> bytes | None:
        self._call()
        return self.values.get(key)

    async def set(self, key: str, value: bytes) -> None:
        self._call()
        self.values[key] = value

    def close(self) -> None:
        self.closed = True

    def _call(self) -> None:
        self.calls += 1
        if self.away:
            raise FetchFailed("it is away")


class Setup:
    def __init__(self, keep_ms: int = 1000, shared: Shared | None = None) -> None:
        self.clock = ManualClock()
        self.stats = Stats()
        self.authority = Authority()
        self.cache = AnswerCache(
            lambda answer: answer if answer.startswith(b"ok") else None,
            self.clock,
            AuthorityStats(self.stats),
            keep_ms,
            shared,
        )

    async def answer(self, key: str = "k") -> bytes:
        return await self.cache.answer(key, self.authority)

    def counted(self, line: str) -> bool:
        return f"streamgauge_authority_cache_{line}".encode() in self.stats.exposition()


async def test_a_thousand_at_once_ask_once() -> None:
    setup = Setup()
    setup.authority.go_on.clear()
    waiting = [asyncio.create_task(setup.answer()) for _ in range(1000)]
    await asyncio.sleep(0)
    setup.authority.go_on.set()
    assert set(await asyncio.gather(*waiting)) == {b"ok 1"}
    assert setup.authority.asked == 1


async def test_an_answer_counts_for_its_time() -> None:
    setup = Setup(keep_ms=1000)
    await setup.answer()
    await setup.clock.advance(0.999)
    assert await setup.answer() == b"ok 1"
    assert await setup.answer("another") == b"ok 2"
    await setup.clock.advance(0.001)
    assert await setup.answer() == b"ok 3"


async def test_without_a_time_each_asks() -> None:
    setup = Setup(keep_ms=0)
    assert [await setup.answer(), await setup.answer()] == [b"ok 1", b"ok 2"]


async def test_a_refusal_is_everybodys_and_is_not_kept() -> None:
    setup = Setup()
    setup.authority.error = Unauthorized("unauthorized")
    results = await asyncio.gather(*(setup.answer() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unauthorized] * 3
    assert setup.authority.asked == 1
    setup.authority.error = None
    assert await setup.answer() == b"ok 2"


async def test_whoever_goes_away_takes_the_answer_from_nobody() -> None:
    setup = Setup()
    setup.authority.go_on.clear()
    first, second = asyncio.create_task(setup.answer()), asyncio.create_task(setup.answer())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    setup.authority.go_on.set()
    assert await second == b"ok 1"
    assert first.cancelled()


async def test_who_waits_while_it_is_closed_may_come_again() -> None:
    shared = Shared()
    setup = Setup(shared=shared)
    setup.authority.go_on.clear()
    waiting = asyncio.create_task(setup.answer())
    for _ in range(3):
        await asyncio.sleep(0)
    setup.cache.close()
    with pytest.raises(NotReady):
        await waiting
    assert shared.closed


async def test_servers_share_answers() -> None:
    shared = Shared()
    one, other = Setup(shared=shared), Setup(shared=shared)
    assert await one.answer() == b"ok 1"
    assert await other.answer() == b"ok 1"
    assert other.authority.asked == 0
    assert one.counted('reads_total{result="miss"} 1.0')
    assert one.counted('writes_total{result="success"} 1.0')
    assert other.counted('reads_total{result="hit"} 1.0')
    await other.answer()
    assert shared.calls == 3  # what is in memory need not be looked for


async def test_what_somebody_else_left_there_is_no_answer() -> None:
    shared = Shared()
    shared.values["k"] = b"rubbish"
    setup = Setup(shared=shared)
    assert await setup.answer() == b"ok 1"
    assert shared.values["k"] == b"ok 1"
    assert setup.counted('reads_total{result="error"} 1.0')


async def test_a_cache_that_is_away_is_left_alone_for_a_while() -> None:
    shared = Shared()
    shared.away = True
    setup = Setup(keep_ms=0, shared=shared)
    assert [await setup.answer(), await setup.answer()] == [b"ok 1", b"ok 2"]
    assert shared.calls == 1
    assert setup.counted('reads_total{result="error"} 1.0')
    shared.away = False
    await setup.clock.advance(PAUSE_SECONDS)
    assert [await setup.answer(), await setup.answer()] == [b"ok 3", b"ok 3"]


async def test_large_answers_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgauge.auth.answer_cache.MAX_KEPT_BYTES", 3)
    setup = Setup()
    assert [await setup.answer(), await setup.answer()] == [b"ok 1", b"ok 2"]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgauge.auth.answer_cache.MAX_ENTRIES", 2)
    setup = Setup()
    for key in ("a", "b", "c"):
        await setup.answer(key)
    assert await setup.answer("c") == b"ok 3"
    assert await setup.answer("a") == b"ok 4"
