"""Events, the streams they come in, and where both go: the store's writing side, as everything that brings events sees
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Stream:
    """What one connection or request brings, or, with a name, all that a client sends under that name."""

    id: int  # from 1 on, ascending, never given again
    started: int  # ns since the Unix epoch
    transport: str  # "http", "websocket"
    headers: str  # of the request that began it, as a JSON object: names in lower case, secrets redacted
    name: str = ""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events of one stream with consecutive indexes that were received together.

    `payloads` are JSON texts in UTF-8, checked, without white space around them.
    """

    stream: Stream
    first: int  # index of the first one; a stream's first event has 1
    time: int  # when they were received, ns since the Unix epoch
    payloads: pa.BinaryArray

    def __len__(self) -> int:
        return len(self.payloads)


class EventSink(Protocol):
    """All methods are called on the event loop's thread."""

    def open_stream(self, transport: str, headers: str) -> Stream:
        """A new stream, which is stored with its first append. Raises Overloaded when there are too many."""

    def resume_stream(self, name: str, transport: str, headers: str) -> tuple[Stream, int]:
        """The stream that clients call `name`, begun now if there is none, and the index that is expected next of it:
        what is on the disk and what is on its way there count. Raises Overloaded when there are too many."""

    async def append_events(self, stream: Stream, first: int, payloads: pa.BinaryArray) -> int:
        """Store consecutive events. Returns, when they are on disk and visible to the next query, the index that is
        expected next. Without events it makes the stream itself durable.

        Of a stream with a name, events below the index expected are there already and are left out. Raises
        IndexConflict when `first` is beyond the index expected, TooLarge for an event that no record of the log can
        hold, ReadOnly or SyncFailed (nothing of these events is visible; a retry is harmless) and Overloaded.
        """
