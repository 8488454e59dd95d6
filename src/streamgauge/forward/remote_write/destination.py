"""Sending all samples to one destination, at least once, from what is stored: nothing waits for it but itself.

What has just been stored waits in memory. When that is too much, or after a start, the rest is read from the head and
from blocks, piece by piece, until there is nothing left but what is being stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from streamgauge.clock import Clock
from streamgauge.errors import Corrupt, DeliveryFailed, StreamgaugeError, Unreadable
from streamgauge.forward.remote_write.loads import Load, loads_of
from streamgauge.forward.remote_write.numbers import Numbers
from streamgauge.forward.remote_write.position import Position
from streamgauge.forward.remote_write.queue import SampleQueue
from streamgauge.forward.remote_write.sender import Sender
from streamgauge.forward.remote_write.series import KnownSeries
from streamgauge.forward.remote_write.target import Protocol, RemoteWriteTarget
from streamgauge.http.client import Resolver
from streamgauge.model.batch import SampleBatch
from streamgauge.model.events import EventBatch
from streamgauge.model.sample_feed import SampleFeed, SamplePiece
from streamgauge.relabel import Relabelling
from streamgauge.wire.influx_encode import InfluxEncoder
from streamgauge.wire.remote_write_encode import Encoder, EncoderV1, EncoderV2, metadata_request
from streamgauge.wire.snappy import compress

LOG = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ROUND = 65_536
"""Samples that are divided among shards at a time; the next are divided when these are sent."""
SAVE_SECONDS = 1.0
"""Between two notes of the position: what may be sent twice after a crash, beside what was on its way."""
LOOK_SECONDS = 30.0
"""Between two looks at which blocks there are."""
RETRY_SECONDS = 10.0
"""After a disk did not give something back."""


@dataclass(slots=True)
class _Attempt:
    """A request that is sent until it is taken."""

    load: Load
    body: bytes = b""


class Destination:
    """Implements model.listener.Listener. position: the file that says how far it is."""

    def __init__(
        self,
        target: RemoteWriteTarget,
        feed: SampleFeed,
        position: Path,
        resolver: Resolver,
        clock: Clock,
        numbers: Numbers,
    ) -> None:
        policy = target.queue
        self.target = target
        self._name = target.name
        self.shards = 0  # in use
        self.highest_in = 0  # ms: the latest time of a sample that was stored since the start
        self.highest_sent = 0
        self._feed = feed
        self._position = Position(position)
        self._clock = clock
        self._numbers = numbers
        self._encoder = _encoder(target)
        external = dict(target.external)
        self._known = KnownSeries(feed.keys, self._encoder, external, Relabelling(target.relabel))
        self._sender = Sender(target, resolver, clock, numbers, self._encoder.headers)
        self._queue = SampleQueue(policy.capacity * policy.max_shards, policy.max_samples_per_send)
        self._round = min(policy.max_shards * policy.max_samples_per_send, MAX_ROUND)
        self._executor = ThreadPoolExecutor(1, f"remote-write-{target.name}")
        self._sending = 0  # samples of the round that are not sent
        self._waiting: dict[str, SamplePiece] = {}  # blocks that are not sent
        self._saved_at = clock.monotonic()

    # ---- model.listener.Listener ------------------------------------------------------------------------------------

    def stored_samples(self, commit: int, batch: SampleBatch) -> None:
        if len(batch):
            self.highest_in = max(self.highest_in, int(batch.times.max()))
            self._queue.add(commit, batch)

    def stored_events(self, commit: int, batches: Sequence[EventBatch]) -> None:
        pass

    # ---- the event loop ---------------------------------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """What is not sent is in memory."""
        return not self._queue.behind

    @property
    def in_memory(self) -> int:
        """Samples that are held to be sent, or are on their way."""
        return self._sending + self._queue.rows

    @property
    def pending(self) -> int:
        """Samples that are stored and not sent, as far as that is known without reading them."""
        position, held = self._position, self.in_memory
        if position.piece or not self._queue.following:
            after = max(position.through, self._queue.last)
            left = [piece for piece in self._feed.pieces(after) if piece.id not in position.done]
            begun = position.rows + self._sending if any(piece.id == position.piece for piece in left) else 0
            held += max(sum(piece.samples for piece in left) - begun, 0)
        return held

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            await self._open()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_removals())
                if self.target.metadata.interval:
                    group.create_task(self._send_metadata())
                while True:
                    if self._queue.behind:
                        await self._catch_up()
                    else:
                        await self._send_queued()
        finally:
            self._sender.close()
            await self._on_thread(self._end)
            self._executor.shutdown(wait=False)

    async def _open(self) -> None:
        """Find out where to begin."""
        start = self._feed.commit
        while True:
            try:
                new = await self._on_thread(lambda: self._position.open(start))
                break
            except DeliveryFailed as error:
                LOG.error("samples are not sent to %s, which is tried again: %s", self._name, error.message)
                await self._clock.sleep(RETRY_SECONDS)
        if new:
            LOG.info("samples are sent to %s from now on", self._name)
        elif self._position.through > self._feed.commit:
            LOG.warning("the folder is an older one than it was; samples are sent to %s from now on", self._name)
            self._advance(self._feed.commit)

    async def _catch_up(self) -> None:
        """One piece of what was stored, or follow what is being stored from now on."""
        pieces = self._feed.pieces(self._position.through)
        self._count_removed(pieces)
        left = [piece for piece in pieces if piece.id not in self._position.done]
        through = min([piece.first - 1 for piece in left], default=self._feed.commit)
        self._advance(max(self._position.through, through))
        self._position.done &= {piece.id for piece in pieces}
        if not left or (len(left) == 1 and not left[0].lasting):  # what comes after the last run is yet to come
            self._queue.follow()
        if left:
            await self._send_piece(left[0])
        await self._save(late=True)

    async def _send_piece(self, piece: SamplePiece) -> None:
        release = piece.lease()
        position = self._position
        if position.piece != piece.id:
            position.piece, position.rows = piece.id, 0
        try:
            while not await self._send_rows(piece):
                await self._clock.sleep(RETRY_SECONDS)
        except Corrupt as error:
            lost = piece.samples - position.rows
            self._numbers.dropped.labels(self._name, "unreadable").inc(lost)
            LOG.error("%d samples are not sent to %s: %s", lost, self._name, error.message)
        finally:
            release()
        if piece.lasting:
            position.done |= {piece.id}
        else:
            self._advance(piece.through)
        position.piece, position.rows = "", 0

    async def _send_rows(self, piece: SamplePiece) -> bool:
        """From where the position is to the end; False where the disk does not give them now. Raises Corrupt."""
        position = self._position
        rows = piece.read(position.rows)
        try:
            while (read := await self._on_thread(lambda: next(rows, None))) is not None:
                await self._send(read[1])
                position.rows = read[0] if piece.lasting else 0
                await self._save(late=True)
        except StreamgaugeError as error:
            if isinstance(error, Corrupt) and not isinstance(error, Unreadable):
                raise
            LOG.error("samples are not sent to %s, which is tried again: %s", self._name, error.message)
            return False
        finally:
            await self._on_thread(rows.close)
        return True

    async def _send_queued(self) -> None:
        """What waits in memory, once that is enough or has waited for long enough."""
        if not self._queue.news.is_set():
            await self._save(late=False)
            await self._queue.news.wait()
        await self._wait_for_more()
        if not self._queue.rows:
            return
        commit, batch = self._queue.take(self._round)
        await self._send(batch)
        self._advance(commit)
        await self._save(late=True)

    async def _wait_for_more(self) -> None:
        if self._queue.crowded.is_set():
            return
        enough = asyncio.ensure_future(self._queue.crowded.wait())
        deadline = asyncio.ensure_future(self._clock.sleep(self.target.queue.batch_send_deadline / 1000))
        try:
            await asyncio.wait((enough, deadline), return_when=asyncio.FIRST_COMPLETED)
        finally:
            enough.cancel()
            deadline.cancel()

    # ---- sending ----------------------------------------------------------------------------------------------------

    async def _send(self, batch: SampleBatch) -> None:
        """All shards side by side, and each one request after the other."""
        policy = self.target.queue
        self._sending = len(batch)
        for start in range(0, len(batch), self._round):
            rows = slice(start, start + self._round)
            part = SampleBatch(batch.series[rows], batch.times[rows], batch.values[rows])
            wanted = -(-len(part) // policy.max_samples_per_send)
            self.shards = min(max(wanted, policy.min_shards), policy.max_shards)
            finite = self.target.influx is not None
            divide = partial(loads_of, part, self._known, self.shards, policy.max_samples_per_send, finite=finite)
            loads, unsent = await self._on_thread(divide)
            for reason, samples in unsent.items():
                self._numbers.dropped.labels(self._name, reason.value).inc(samples)
                self._sending -= samples
            async with asyncio.TaskGroup() as group:
                for shard, requests in enumerate(loads):
                    if requests:
                        group.create_task(self._send_shard(shard, requests))
        self._sending = 0

    async def _send_shard(self, shard: int, loads: Sequence[Load]) -> None:
        for load in loads:
            attempt = _Attempt(load)
            if await self._sender.deliver(shard, partial(self._body, attempt)):
                self.highest_sent = max(self.highest_sent, int(attempt.load.times.max()))
            self._sending -= len(load)

    async def _body(self, attempt: _Attempt) -> tuple[bytes, int]:
        """Encoded once, and anew where samples have become too old."""
        limit = self.target.queue.sample_age_limit
        if limit:
            fresh = attempt.load.since(self._clock.now_ms() - limit)
            if dropped := len(attempt.load) - len(fresh):
                self._numbers.dropped.labels(self._name, "too_old").inc(dropped)
                attempt.load, attempt.body = fresh, b""
        if len(attempt.load) and not attempt.body:
            attempt.body = await self._on_thread(lambda: attempt.load.body(self._encoder))
        return attempt.body, len(attempt.load)

    async def _send_metadata(self) -> None:
        policy, name = self.target.metadata, self._name
        while True:
            metadata = self._feed.metadata()
            if self.target.protocol is Protocol.V2:
                await self._on_thread(partial(self._encoder.describe, metadata))
            else:
                for start in range(0, len(metadata), policy.max_per_send):
                    some = metadata[start : start + policy.max_per_send]
                    body = compress(await self._on_thread(partial(metadata_request, some)))
                    refusal = await self._sender.post(-1, body)
                    (self._numbers.metadata if refusal is None else self._numbers.metadata_failed).labels(name).inc(
                        len(some)
                    )
            await self._clock.sleep(policy.interval / 1000)

    # ---- the position -----------------------------------------------------------------------------------------------

    def _advance(self, through: int) -> None:
        self._position.through = through

    async def _watch_removals(self) -> None:
        """A piece may take hours, if the destination is away, and other blocks come and go meanwhile."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self._count_removed(self._feed.pieces(self._position.through))

    def _count_removed(self, pieces: Sequence[SamplePiece]) -> None:
        """Blocks that are gone before they were sent, and in no other, are told and counted."""
        name, position = self._name, self._position
        for known, piece in list(self._waiting.items()):
            if not any(other.first <= piece.first and piece.through <= other.through for other in pieces):
                del self._waiting[known]
                if piece.through > position.through and known not in position.done:
                    LOG.error(
                        "%d samples were removed, most likely by retention, before %s had them", piece.samples, name
                    )
                    self._numbers.dropped.labels(name, "removed").inc(piece.samples)
        self._waiting = {piece.id: piece for piece in pieces if piece.lasting and piece.id not in position.done}

    async def _save(self, late: bool) -> None:
        """Note the position; where it may be `late`, if that was some time ago."""
        if late and self._clock.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        self._saved_at = self._clock.monotonic()
        try:
            await self._on_thread(self._position.save)
        except DeliveryFailed as error:  # what is sent twice is harmless
            LOG.warning("how far %s is cannot be noted, and will be later: %s", self._name, error.message)

    # ---- the thread -------------------------------------------------------------------------------------------------

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _end(self) -> None:
        """What is sent is noted: a restart sends nothing twice."""
        try:
            self._position.close()
        except DeliveryFailed as error:
            LOG.warning("how far %s is could not be noted, so some samples come twice: %s", self._name, error.message)


def _encoder(target: RemoteWriteTarget) -> Encoder:
    if target.influx is not None:
        return InfluxEncoder()
    return EncoderV2() if target.protocol is Protocol.V2 else EncoderV1()
