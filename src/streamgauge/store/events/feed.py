"""All events in order of commit, for those that hand them on: implements model.event_feed.EventFeed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import pyarrow as pa

from streamgauge.model.event_feed import EventPiece
from streamgauge.model.event_source import EventRange, Fixed, Rest, batch_of_events
from streamgauge.model.events import Stream
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.events.runs import EventRun
from streamgauge.store.events.snapshot import HeadPart, head_streams
from streamgauge.store.store import Store


class StoreFeed:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks = LocalEventBlocks(store.data)

    def take(self) -> tuple[int, Sequence[EventPiece], Callable[[], None]]:
        snapshot = self._store.events.snapshot()
        release = self._store.leases.acquire(snapshot.names)
        pieces = [*map(self._of_block, snapshot.blocks), *map(_of_run, snapshot.head.runs)]
        return self._store.state.commit, pieces, release

    def _of_block(self, meta: EventBlockMeta) -> EventPiece:
        streams, batches = partial(self._streams, meta), partial(self._batches, meta)
        return EventPiece(meta.first_commit, meta.last_commit, meta.events, streams, batches)

    def _streams(self, meta: EventBlockMeta) -> Sequence[Stream]:
        with closing(self._blocks.open(meta.id)) as reader:
            return reader.streams()

    def _batches(self, meta: EventBlockMeta) -> Iterator[pa.RecordBatch]:
        with closing(self._blocks.open(meta.id)) as reader:
            yield from reader.payloads(EventRange())


def _of_run(run: EventRun) -> EventPiece:
    return EventPiece(run.first_commit, run.last_commit, 0, partial(head_streams, [run]), partial(_batches_of_run, run))


def _batches_of_run(run: EventRun) -> Iterator[pa.RecordBatch]:
    for batch in HeadPart((run,)).read([*Fixed, Rest(())], EventRange()):
        yield batch_of_events(*batch.columns)
