"""Appends of samples that come together, put into one: a scrape of a small target costs less than its append."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import Metadata, SampleBatch, joined
from streamgauge.model.sink import Sink

MAX_ROWS = 16_384
"""Rows that are enough for one append: the store divides a larger one."""
MAX_APPENDS = 32
"""Appends put together at most: the first of them waits for as many turns, about a millisecond each."""
_MAX_PASSES = 2 * MAX_APPENDS  # of the loop: a turn takes two


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    batch: SampleBatch
    metadata: tuple[Metadata, ...]
    done: asyncio.Future[None]


class GatheringSink:
    """Implements model.sink.Sink on another one. As long as somebody waits for a turn to decode, who is likely to
    append something next, appends are gathered, up to a bound. Used on the event loop.

    turns: those of who appends here.
    """

    def __init__(self, sink: Sink, turns: Turns) -> None:
        self._sink = sink
        self._turns = turns
        self._gathered: list[_Waiting] = []
        self._rows = 0
        self._passes = 0  # of the loop, since the first of `_gathered` came
        self._storing: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Appends that have been gathered."""
        return len(self._gathered)

    def resolve(self, key: bytes) -> int:
        return self._sink.resolve(key)

    @property
    def generation(self) -> int:
        return self._sink.generation

    def admitted(self) -> tuple[int, int]:
        return self._sink.admitted()

    async def bulk_room(self) -> None:
        await self._sink.bulk_room()

    async def append(self, batch: SampleBatch, metadata: Sequence[Metadata] = ()) -> None:
        if not self._gathered and not self._turns.takers:
            await self._sink.append(batch, metadata)
            return
        waiting = _Waiting(batch, tuple(metadata), asyncio.get_running_loop().create_future())
        self._gathered.append(waiting)
        self._rows += len(batch)
        if self._is_enough():
            self._store()
        elif len(self._gathered) == 1:
            self._passes = 0
            asyncio.get_running_loop().call_soon(self._look, waiting)
        await waiting.done

    def _is_enough(self) -> bool:
        return not self._turns.takers or self._rows >= MAX_ROWS or len(self._gathered) >= MAX_APPENDS

    def _look(self, first: _Waiting) -> None:
        """In each pass of the loop while `first` waits: those who took turns meanwhile may append elsewhere."""
        if not self._gathered or self._gathered[0] is not first:
            return
        self._passes += 1
        if self._is_enough() or self._passes >= _MAX_PASSES:
            self._store()
        else:
            asyncio.get_running_loop().call_soon(self._look, first)

    def _store(self) -> None:
        """Append what has gathered, in a task: who waits for it may be cancelled, and the others not with it."""
        gathered, self._gathered, self._rows = self._gathered, [], 0
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
