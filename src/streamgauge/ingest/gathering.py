"""Appends of samples that come together, put into one: a scrape of a small target costs less than its append."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch, joined
from streamgauge.model.sink import Done, Sink

MAX_ROWS = 16_384
"""Rows put together at most: the store divides a larger append."""
GATHER_SECONDS = 0.01
"""How long an append waits for others, while some are expected: in it come some targets that were asked at once."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    batch: SampleBatch
    metadata: tuple[Metadata, ...]
    done: asyncio.Future[None]


class GatheringSink:
    """Implements model.sink.Sink on another one. As long as somebody else is expected to append something, appends are
    gathered, up to a bound. Used on the event loop.

    turns: know who is expected. seconds: after which the first of them is not held back any longer.
    """

    def __init__(self, sink: Sink, turns: Turns, seconds: float = GATHER_SECONDS) -> None:
        self._sink = sink
        self._turns = turns
        self._seconds = seconds
        self._gathered: list[_Waiting] = []
        self._rows = 0
        self._timer: asyncio.TimerHandle | None = None  # set as long as something has gathered
        self._storing: set[asyncio.Task[None]] = set()

    def resolve(self, key: bytes) -> int:
        return self._sink.resolve(key)

    @property
    def generation(self) -> int:
        return self._sink.generation

    def admitted(self) -> tuple[int, int]:
        return self._sink.admitted()

    async def bulk_room(self) -> None:
        await self._sink.bulk_room()

    def begin(self, batch: SampleBatch, done: Done, metadata: Sequence[Metadata] = ()) -> bool:
        return not self._gathered and not self._turns.expected and self._sink.begin(batch, done, metadata)

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        if not self._gathered and not self._turns.expected:
            await self._sink.append(batch, metadata)
            return
        if self._rows + len(batch) > MAX_ROWS:
            self._store()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(batch, tuple(metadata), loop.create_future())
        self._gathered.append(waiting)
        self._rows += len(batch)
        if not self._turns.expected:
            self._store()
        elif self._timer is None:
            self._timer = loop.call_later(self._seconds, self._store)
        await waiting.done

    def _store(self) -> None:
        """Append what has gathered, in a task: who waits for it may be cancelled, and the others not with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered, self._rows = self._gathered, [], 0
        if not gathered:
            return
        task = asyncio.get_running_loop().create_task(self._append(gathered))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def _append(self, gathered: Sequence[_Waiting]) -> None:
        try:
            await self._sink.append(
                joined([one.batch for one in gathered]), [entry for one in gathered for entry in one.metadata]
            )
        except StreamgaugeError as error:
            if len(gathered) == 1:
                _settle(gathered[0], error)
                return
            for one in gathered:  # what one of them is refused for is nothing to the others
                await self._append([one])
        except BaseException as error:
            for one in gathered:
                _settle(one, error)
            if not isinstance(error, Exception):
                raise
        else:
            for one in gathered:
                _settle(one, None)


def _settle(one: _Waiting, error: BaseException | None) -> None:
    if one.done.done():
        return
    if error is None:
        one.done.set_result(None)
    elif isinstance(error, asyncio.CancelledError):
        one.done.cancel()
    else:
        one.done.set_exception(error)
