"""What of the events a start finds in the log, and puts back into the head; and in blocks, if the catalog is lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamgauge.errors import Corrupt
from streamgauge.model.event_source import EventRange, Fixed
from streamgauge.model.events import EventBatch, Stream
from streamgauge.store.events.block_reader import EventBlockReader
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.ports import EventBlockMeta, NamedStream
from streamgauge.store.events.records import decode_events, decode_streams, with_streams
from streamgauge.store.ports import Record, RecordKind

LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class LoggedStreams:
    """The streams that the log defines, gathered as it is replayed."""

    streams: dict[int, Stream] = field(default_factory=dict)

    def commit_of(self, record: Record) -> tuple[EventBatch, ...]:
        """The events of a record, if it is one of events; a definition is taken in. Raises Corrupt."""
        if record.kind == RecordKind.STREAMS:
            self.streams.update((stream.id, stream) for stream in decode_streams(record.payload))
        elif record.kind == RecordKind.EVENTS:
            return tuple(with_streams(decode_events(record.payload), self.streams))
        return ()


def named_in_blocks(blocks: LocalEventBlocks, metas: Sequence[EventBlockMeta]) -> tuple[NamedStream, ...]:
    """The streams with a name that blocks have events of, and how far these go: for a catalog that is lost."""
    found: dict[str, NamedStream] = {}
    for meta in metas:
        try:
            with blocks.open(meta.id) as reader:
                streams = [stream for stream in reader.streams() if stream.name]
                following = _following(reader) if streams else {}
        except Corrupt as error:  # a query will meet it, too, and have the block set aside
            LOG.error("streams in block %s cannot be gone on with: %s", meta.id, error.message)
            continue
        for stream in streams:
            before = found.get(stream.name)
            if before is not None and before.stream.id > stream.id:  # the name was begun anew
                continue
            known = before.next_index if before is not None and before.stream.id == stream.id else 1
            found[stream.name] = NamedStream(stream, max(known, following.get(stream.id, 1)), meta.max_time)
    return tuple(found[name] for name in sorted(found))


def _following(reader: EventBlockReader) -> dict[int, int]:
    """The index behind the last of each stream that has events."""
    following: dict[int, int] = {}
    for batch in reader.read([Fixed.STREAM, Fixed.INDEX], EventRange()):
        streams, indexes = (column.to_numpy() for column in batch.columns)
        last = np.flatnonzero(np.diff(streams, append=-1))  # rows are in order of stream and index
        following.update(zip(streams[last].tolist(), (indexes[last] + 1).tolist(), strict=True))
    return following
