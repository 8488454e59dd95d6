"""Runs of the event head: how the events of consecutive commits lie in one shared-memory segment.

    streams int64[rows], indexes int64[rows], times int64[rows], ends int64[rows], texts uint8[bytes]

with room for `room_rows` rows and `room_bytes` bytes of text; row i has the text from ends[i - 1], or 0, to ends[i]. A
row of index 0 is no event: it defines the stream (`records.stream_text`) that later rows of the run are of. So each run
says all that is to be known of its events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamgauge.model.arrays import Int64s
from streamgauge.model.events import Stream
from streamgauge.store.events.ports import EventRows
from streamgauge.store.events.records import stream_of_text
from streamgauge.store.shm import Segment, attach

ROW_BYTES = 32


def segment_bytes(rows: int, size: int) -> int:
    return ROW_BYTES * rows + size


@dataclass(frozen=True, slots=True)
class EventRun:
    """Rows of the commits first_commit to last_commit, both inclusive."""

    name: str
    room_rows: int
    room_bytes: int
    rows: int  # of them some define streams
    bytes: int  # of text
    first_commit: int
    last_commit: int

    def attached(self) -> EventColumns:
        """Raises StorageError."""
        segment = attach(self.name, segment_bytes(self.room_rows, self.room_bytes))
        return EventColumns.of(segment, self.room_rows, self.room_bytes)


@dataclass(frozen=True, slots=True)
class EventHeadSnapshot:
    """One state of the head: its runs in order of commit. Valid as long as a lease on `names` is held."""

    runs: tuple[EventRun, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(run.name for run in self.runs)


@dataclass(frozen=True, slots=True)
class EventColumns:
    streams: Int64s
    indexes: Int64s
    times: Int64s
    ends: Int64s
    texts: npt.NDArray[np.uint8]

    @staticmethod
    def of(segment: Segment, rows: int, size: int) -> EventColumns:
        def column(number: int) -> Int64s:
            return cast("Int64s", segment.array(np.int64, 8 * rows * number, rows))

        texts = cast("npt.NDArray[np.uint8]", segment.array(np.uint8, ROW_BYTES * rows, size))
        return EventColumns(column(0), column(1), column(2), column(3), texts)

    def rows(self, run: EventRun) -> EventRows:
        """The rows of a run, also those that define streams, without a copy of the texts."""
        rows = slice(0, run.rows)
        offsets = np.concatenate((np.zeros(1, np.int64), self.ends[rows]))
        buffers = [None, pa.py_buffer(offsets.data), pa.py_buffer(self.texts.data)]
        payloads = pa.Array.from_buffers(pa.large_binary(), run.rows, buffers)
        return EventRows(
            self.streams[rows], self.indexes[rows], self.times[rows], cast("pa.LargeBinaryArray", payloads)
        )


def events_of(rows: EventRows) -> EventRows:
    """The rows that are events."""
    wanted = rows.indexes > 0
    return EventRows(
        rows.streams[wanted], rows.indexes[wanted], rows.times[wanted], rows.payloads.filter(pa.array(wanted))
    )


def streams_of(rows: EventRows) -> list[Stream]:
    """The streams that rows define. Raises Corrupt."""
    return [stream_of_text(text.as_buffer()) for text in rows.payloads.filter(pa.array(rows.indexes == 0))]
