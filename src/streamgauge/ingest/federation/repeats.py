"""Uploads that repeat the series of the one before: how they are read, and how they are stored without a task.

Nearly all are such, and small. One that is there as a whole is read where it arrives, and its sender is answered where
the disk has it: to begin, wake and end a task between the two costs as much as to read the upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from streamgauge.auth.cluster_authority import ClusterIdentity
from streamgauge.clock import Clock
from streamgauge.errors import StreamgaugeError
from streamgauge.ingest.federation.layouts import Layout, Layouts
from streamgauge.ingest.federation.liveness import Ended, Liveness
from streamgauge.ingest.federation.markers import Markers
from streamgauge.ingest.federation.policy import Bounds, Policy
from streamgauge.ingest.federation.pushes import Admission, Sender
from streamgauge.ingest.federation.stats import UPLOAD, PushStats
from streamgauge.ingest.turns import Turns
from streamgauge.model.batch import SampleBatch
from streamgauge.model.sink import Done, Sink
from streamgauge.wire import snappy_frames
from streamgauge.wire.push_part import part_of

MAX_BYTES = 512 << 10
"""Of an upload's content that is read at once: a millisecond of work."""


@dataclass(slots=True)
class _Begun:
    """An upload on its way to the disk."""

    sender: Sender
    layout: Layout
    newest: int
    size: int  # bytes of its body
    stored: int  # samples
    started: float
    done: Done


class Repeats:
    """Of all clusters. negotiate: whether an upload with such headers is text; raises UnsupportedMedia. limit: bytes of
    an upload's content. Used on the event loop."""

    def __init__(
        self,
        sink: Sink,
        stats: PushStats,
        clock: Clock,
        turns: Turns,
        liveness: Liveness,
        markers: Markers,
        policy: Policy,
        admission: Admission,
        layouts: Layouts,
        negotiate: Callable[[Mapping[str, str]], bool],
        limit: int,
    ) -> None:
        self._sink = sink
        self._tally = stats.repeats
        self._left_out = stats.left_out.labels(UPLOAD)
        self._clock = clock
        self._turns = turns
        self._liveness = liveness
        self._markers = markers
        self._policy = policy
        self._admission = admission
        self._layouts = layouts
        self._negotiate = negotiate
        self._encoded_limit = snappy_frames.encoded_limit(limit)
        self._marking: set[asyncio.Task[None]] = set()

    def read(self, sender: Sender, layout: Layout, data: bytes, bounds: Bounds) -> SampleBatch | None:
        """What an upload says, LEFT_OUT among its series, if it has those of the layout; None where it has not, or may
        break a rule. Raises PushRefused where the cluster has too many."""
        numbers = layout.read(data)
        span = None if numbers is None else self._policy.in_time(numbers.times, layout.first, bounds)
        if numbers is None or span is None:
            return None
        beside = self._liveness.beside(sender.cluster, sender.part)
        self._admission.check_series(sender.cluster, layout.series, 0, beside)
        return SampleBatch(layout.ids, numbers.times, numbers.values, span)

    def begin(self, identity: ClusterIdentity, headers: Mapping[str, str], raw: bytes, done: Done) -> bool:
        """Begin to store an upload that is there as a whole, if that needs no waiting and nothing is unusual about it.
        False: nothing has happened, and it is to be received as others are. `done`: as that of `Sink.begin`."""
        if self._policy.settings.overwrite_timestamps or len(raw) > self._encoded_limit:
            return False
        return bool(self._turns.at_once(partial(self._begin, identity, headers, raw, done)))

    def _begin(self, identity: ClusterIdentity, headers: Mapping[str, str], raw: bytes, done: Done) -> bool:
        started = self._clock.monotonic()
        sender = self._admission.welcome(identity, part_of(headers))
        layout = None if sender is None else self._layouts.find((sender.owner, sender.part))
        if (
            sender is None
            or layout is None
            or layout.size > MAX_BYTES
            or self._layouts.generation != self._sink.generation
        ):
            return False
        if self._negotiate(headers) or headers.get("content-encoding", "").strip().lower() != "snappy":
            return False
        data = snappy_frames.decode(raw, layout.size)
        bounds = self._policy.bounds(self._clock.now_ms(), self._sink.admitted())
        batch = self.read(sender, layout, data, bounds)
        if batch is None:
            return False
        newest = batch.span()[1]
        if (stored := layout.stored) is not None:
            batch = SampleBatch(batch.series[stored], batch.times[stored], batch.values[stored])
        begun = _Begun(sender, layout, newest, len(raw), len(batch.series), started, done)
        return self._admission.begin(sender.cluster, self._sink, batch, partial(self._end, begun))

    def _end(self, begun: _Begun, error: StreamgaugeError | None) -> None:
        if error is not None:
            begun.done(error)
            return
        now = self._clock.monotonic()
        self._tally.add(begun.size, begun.stored, now - begun.started)
        if left_out := len(begun.layout.ids) - begun.stored:
            self._left_out.inc(left_out)
        ended = self._liveness.upload(begun.sender.cluster, begun.layout.series, begun.newest, now, begun.sender.part)
        if ended is None:
            begun.done(None)
        else:
            task = asyncio.get_running_loop().create_task(self._mark(ended, begun.done))
            self._marking.add(task)
            task.add_done_callback(self._marking.discard)

    async def _mark(self, ended: Ended, done: Done) -> None:
        try:
            await self._markers.mark(ended)
        finally:
            done(None)
