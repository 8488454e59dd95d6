"""What an authority has assented to, remembered for a while: in memory, and where several servers share it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from streamgauge.auth.authority_stats import AuthorityStats
from streamgauge.clock import Clock
from streamgauge.errors import FetchFailed, NotReady

LOG = logging.getLogger(__name__)

MAX_ENTRIES = 20_000
"""Of answers in memory: one for each client that shows its credentials, half a kilobyte each."""
MAX_KEPT_BYTES = 4096
"""Of an answer that is kept in memory. Others are asked for again."""
PAUSE_SECONDS = 5.0
"""For which a shared cache that failed is not asked: a push need not wait for it each time."""


Understood = TypeVar("Understood")


class SharedCache(Protocol):
    """Keys are hexadecimal. Both raise FetchFailed."""

    async def get(self, key: str) -> bytes | None: ...
    async def set(self, key: str, value: bytes) -> None: ...
    def close(self) -> None: ...


class AnswerCache(Generic[Understood]):
    """read: what an answer means; None when it is no answer, as others write to the shared cache, too. keep_ms: how
    long an answer is kept in memory; 0 for not at all. Used on the event loop. `close` it."""

    def __init__(
        self,
        read: Callable[[bytes], Understood | None],
        clock: Clock,
        stats: AuthorityStats,
        keep_ms: int,
        shared: SharedCache | None = None,
    ) -> None:
        self._read = read
        self._clock = clock
        self._stats = stats
        self._keep = keep_ms / 1000
        self._shared = shared
        self._answers: OrderedDict[str, tuple[float, Understood]] = OrderedDict()  # until when, by the monotonic clock
        self._asking: dict[str, asyncio.Task[Understood]] = {}
        self._paused_until = 0.0

    async def answer(self, key: str, ask: Callable[[], Awaitable[bytes]]) -> Understood:
        """The answer for a key. However many want it at once, `ask` is called once; what it raises, they all get, and
        is not remembered. Raises NotReady when the cache is closed meanwhile."""
        if (known := self.known(key)) is not None:
            return known
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._find(key, ask))
            asking.add_done_callback(lambda task: self._done(key, task))
        try:
            return await asyncio.shield(asking)  # whoever goes away takes the answer from nobody else
        except asyncio.CancelledError:
            if asking.cancelled():
                raise NotReady("the configuration is being reloaded; try again", 1) from None
            raise

    def known(self, key: str) -> Understood | None:
        """The answer that is remembered, if there is one."""
        known = self._answers.get(key)
        return known[1] if known is not None and known[0] > self._clock.monotonic() else None

    def close(self) -> None:
        for asking in list(self._asking.values()):
            asking.cancel()
        if self._shared is not None:
            self._shared.close()

    def _done(self, key: str, task: asyncio.Task[Understood]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # which those who wait have got, if somebody does

    async def _find(self, key: str, ask: Callable[[], Awaitable[bytes]]) -> Understood:
        answer = await self._shared_answer(key)
        understood = None if answer is None else self._understood(answer)
        if answer is None or understood is None:
            answer = await ask()
            understood = self._read(answer)
            assert understood is not None, "whoever asks refuses what is no answer"
            await self._share(key, answer)
        if self._keep and len(answer) <= MAX_KEPT_BYTES:
            self._answers.pop(key, None)
            self._answers[key] = (self._clock.monotonic() + self._keep, understood)
            if len(self._answers) > MAX_ENTRIES:
                self._answers.popitem(last=False)
        return understood

    def _understood(self, answer: bytes) -> Understood | None:
        """Of an answer from the shared cache."""
        understood = self._read(answer)
        self._stats.cache_reads.labels("error" if understood is None else "hit").inc()
        if understood is None:
            LOG.warning("an entry of memcached is no answer of an authority, and is replaced")
        return understood

    async def _shared_answer(self, key: str) -> bytes | None:
        """None also while the shared cache is away: then the authority itself is asked."""
        if self._shared is None or self._clock.monotonic() < self._paused_until:
            return None
        try:
            answer = await self._shared.get(key)
        except FetchFailed as error:
            self._stats.cache_reads.labels("error").inc()
            self._pause(error)
            return None
        if answer is None:
            self._stats.cache_reads.labels("miss").inc()
        return answer

    async def _share(self, key: str, answer: bytes) -> None:
        if self._shared is None or self._clock.monotonic() < self._paused_until:
            return
        try:
            await self._shared.set(key, answer)
        except FetchFailed as error:
            self._stats.cache_writes.labels("error").inc()
            self._pause(error)
        else:
            self._stats.cache_writes.labels("success").inc()

    def _pause(self, error: FetchFailed) -> None:
        self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
        LOG.warning("memcached is not asked for %g s: %s", PAUSE_SECONDS, error.message)
