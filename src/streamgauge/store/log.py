"""The log on local disk: segment files, appended to by one writer, each append synced before it returns."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from streamgauge.errors import StorageError
from streamgauge.store import fs, names
from streamgauge.store.damage import Damage
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import Record
from streamgauge.store.replay import MAX_SEGMENT_BYTES, LogReader, Segment
from streamgauge.store.segment import HEADER_BYTES, Header, encode_frame

SEGMENT_BYTES = 64 << 20
"""Where a segment ends and the next begins: what trimming frees at a time, and what replay holds in memory."""

AHEAD_BYTES = 256 << 10
"""Zeros that are written ahead of small appends. A sync that makes the file longer also writes the journal of the file
system: measured on ext4, it takes twice the time and twice the CPU."""
_SMALL_APPEND = 64 << 10  # a larger one would have most of the zeros to itself


class SegmentLog:
    """Implements `ports.Log`. Replay first, to the end; then append.

    `flushed_through`: the catalog's; blocks hold every commit up to it. A log that is not `writable` can only be
    replayed, and nothing in the folder is changed.
    """

    def __init__(
        self,
        data: Path,
        store_id: str,
        flushed_through: int = 0,
        *,
        writable: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._data = data
        self._store_id = uuid.UUID(store_id).bytes
        self._segment_bytes = segment_bytes
        self._writable = writable
        self._reader = LogReader(data, store_id, flushed_through, writable)
        self._replayed = False
        self._segments = self._reader.segments  # in order; where one is open, it is the last
        self._fd: int | None = None  # of the open segment
        self._filled = 0  # bytes of its file; those behind the segment's end are zeros
        self._last_commit = 0
        self._next_sequence = 1

    def replay(self) -> Iterator[Record]:
        """See `ports.Log`. Can be run once, before the first append. Raises FormatTooNew and StorageError."""
        assert not self._replayed, "the log was replayed before"
        yield from self._reader
        self._last_commit = self._reader.last_commit
        self._next_sequence = self._reader.next_sequence
        self._replayed = True

    @property
    def damage(self) -> Sequence[Damage]:
        return tuple(self._reader.damage)

    @property
    def last_commit(self) -> int:
        """The highest commit ever given, as far as the log knows; 0 where there is none."""
        return self._last_commit

    @property
    def closed_bytes(self) -> int:
        """Of segments that trimming can remove. May be asked on any thread."""
        return sum(segment.end for segment in tuple(self._segments[:-1]))

    def reserve(self, size: int) -> bool:
        """See `ports.Log`. True also for a segment that is open and holds no record yet."""
        assert self._replayed, "the log must be replayed before it is written to"
        assert self._writable, "the log is open for reading"
        if self._fd is not None:
            end = self._segments[-1].end
            if end == HEADER_BYTES:
                return True
            if end + size <= self._segment_bytes:
                return False
        self.close()
        self._create()
        return True

    def append(self, records: Sequence[Record]) -> None:
        """See `ports.Log`. Raises ReadOnly when the disk is full, else SyncFailed; both mean the same for the log."""
        assert self._fd is not None, "reserve comes before append"
        fd, segment = self._fd, self._segments[-1]
        buffers: list[bytes | memoryview] = []
        for record in records:
            buffers += encode_frame(record, segment.mark, begins=not buffers)
        size = sum(map(len, buffers))
        if segment.end + size > MAX_SEGMENT_BYTES:
            raise ValueError(f"an append of {size} bytes does not fit a log segment, which has at most 1 GiB")
        self._check_order(records)
        try:
            hit("log.append.before_write")
            fs.write(fd, buffers, segment.path)
            self._write_ahead(fd, segment.end + size, size)
            hit("log.append.before_sync")
            fs.sync_file(fd, segment.path)
            hit("log.append.after_sync")
        except BaseException:
            self._abandon()
            raise
        segment.end += size
        self._last_commit = segment.last_commit = records[-1].commit

    def _write_ahead(self, fd: int, end: int, size: int) -> None:
        """Write zeros behind an append of `size` bytes that ends at `end` where there are none."""
        if end <= self._filled:
            return
        self._filled = end
        if size <= _SMALL_APPEND and end + AHEAD_BYTES <= self._segment_bytes:
            self._filled = fs.write_zeros(fd, end, AHEAD_BYTES)

    def trim(self, through: int) -> None:
        """See `ports.Log`. Oldest first, each removal durable before the next, so that a crash leaves no hole."""
        closed = len(self._segments) - (self._fd is not None)
        while closed and self._segments[0].last_commit <= through:
            hit("log.trim.before_remove")
            self._remove(self._segments[0])
            del self._segments[0]
            closed -= 1
            hit("log.trim.after_remove")

    def rotate(self) -> int:
        """See `ports.Log`."""
        if self._fd is not None and self._segments[-1].end > HEADER_BYTES:
            self.close()
        return self._last_commit

    def may_hold(self, through: int) -> bool:
        """See `ports.Log`."""
        return any(segment.after < through for segment in self._segments if segment.end > HEADER_BYTES)

    def close(self) -> None:
        """Close the open segment. Everything in it is synced already."""
        if self._fd is not None:
            if self._filled > self._segments[-1].end:
                with suppress(StorageError):  # zeros that stay there are read as such
                    fs.cut(self._fd, self._segments[-1].end)
            fs.close(self._fd)
            self._fd = None

    def _check_order(self, records: Sequence[Record]) -> None:
        commit = self._last_commit
        for record in records:
            assert record.commit >= commit, f"commit {record.commit} after {commit}"
            commit = record.commit

    def _create(self) -> None:
        folder = names.log_dir(self._data)
        fs.make_dir(folder)
        sequence = self._next_sequence
        self._next_sequence += 1  # also after a failure: its file may not have gone
        path = names.segment_file(self._data, sequence)
        previous = self._segments[-1] if self._segments else None
        header = Header(
            store_id=self._store_id,
            sequence=sequence,
            mark=secrets.randbits(32) | 1,  # never 0
            previous=previous.sequence if previous else 0,
            previous_mark=previous.mark if previous else 0,
            previous_bytes=previous.end if previous else 0,
            previous_commit=self._last_commit,
        )
        fd = fs.create(path)
        try:
            hit("log.create.before_header")
            fs.write(fd, [header.encode()], path)
            hit("log.create.before_sync")
            fs.sync_file(fd, path)
            fs.sync_dir(folder)
            hit("log.create.after_sync")
        except BaseException:
            fs.close(fd)
            with suppress(StorageError):
                fs.remove_file(path)
            raise
        last = self._last_commit
        self._segments.append(Segment(sequence, path, header.mark, HEADER_BYTES, last, after=last))
        self._fd, self._filled = fd, HEADER_BYTES

    def _abandon(self) -> None:
        """Seal the open segment after a failure. Whether its end could be cut or not, the next header voids it."""
        assert self._fd is not None
        fd, self._fd = self._fd, None
        try:
            with suppress(StorageError):
                hit("log.seal.before_truncate")
                fs.cut(fd, self._segments[-1].end)
        finally:
            fs.close(fd)

    def _remove(self, segment: Segment) -> None:
        if segment.damage is not None:
            fs.set_aside(segment.path, self._data, segment.damage)
            return
        fs.remove_file(segment.path)
        fs.sync_dir(segment.path.parent)
