"""What of the events a start finds in the log, and puts back into the head."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamgauge.model.events import EventBatch, Stream
from streamgauge.store.events.records import decode_events, decode_streams, with_streams
from streamgauge.store.ports import Record, RecordKind


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
