"""Blocks of events on a local folder: one directory a block, published by a rename and never changed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from streamgauge.model.event_source import Node
from streamgauge.model.events import Stream
from streamgauge.store import names
from streamgauge.store.block_folders import BlockFolders
from streamgauge.store.damage import Damage
from streamgauge.store.events.block_reader import EventBlockReader, read_meta
from streamgauge.store.events.block_writer import EventBlockWriter, groups_of, shred_rows
from streamgauge.store.events.check import check_event_blocks
from streamgauge.store.events.encodings import FLUSH_LEVEL, Encodings, choose_encodings
from streamgauge.store.events.format import RowGroup, commits_in_id, new_block_id
from streamgauge.store.events.ports import UNDIVIDED, EventBlockMeta, EventFlush
from streamgauge.store.events.undivided import undivided
from streamgauge.store.patience import Patience


class LocalEventBlocks:
    """Holds no state: any number of processes may read, one writes.

    Where `read_only`, a scan removes and moves nothing; it is for a folder that is looked at without a server. What
    `patience` a scan has with a disk that gives nothing back.
    """

    def __init__(self, data: Path, read_only: bool = False, patience: Patience | None = None) -> None:
        self._folders = BlockFolders(data, names.event_blocks_dir(data))
        self._read_only = read_only
        self._patience = patience or Patience()

    def scan(self) -> tuple[list[EventBlockMeta], list[Damage]]:
        """Every whole block there is, ordered by id, from the footers; what cannot be read is set aside.

        For the start, while nobody uses the folder: what was half written is removed. Raises FormatTooNew for a block
        of a later version.
        """
        return self._folders.scan(read_meta, self._patience, self._read_only)

    def names(self) -> list[str]:
        """The ids of the blocks that are there, readable or not."""
        return self._folders.names()

    def write(
        self, flush: EventFlush, level: int = 0, parents: tuple[str, ...] = (), pruned: tuple[str, ...] = ()
    ) -> EventBlockMeta:
        """Write a block of these events. It counts for nothing until the catalog names it.

        level: UNDIVIDED, for payloads to stay as they are."""
        times = flush.rows.times if len(flush.rows) else [stream.started for stream in flush.streams]
        meta = EventBlockMeta(
            id=new_block_id(int(min(times)), flush.first_commit, flush.last_commit),
            first_commit=flush.first_commit,
            last_commit=flush.last_commit,
            min_time=0,
            max_time=0,
            min_stream=0,
            max_stream=0,
            level=level,
            events=0,
            streams=0,
            bytes=0,
            parents=parents,
            pruned=pruned,
        )
        node, groups = (Node(), groups_of(flush.rows, undivided)) if level == UNDIVIDED else shred_rows(flush.rows)
        return self.write_groups(meta, node, groups, flush.streams, FLUSH_LEVEL)

    def write_groups(
        self, meta: EventBlockMeta, node: Node, groups: Iterator[RowGroup], streams: Sequence[Stream], level: int
    ) -> EventBlockMeta:
        """Write a block out of its row groups, in order, and their streams. `level` is zstd's."""
        first = next(groups, None)
        encodings = choose_encodings(first.payloads, level) if first else Encodings({}, level)
        with self.writer(meta, node, encodings) as writer:
            while first is not None:
                writer.write_row_group(first)
                first = next(groups, None)
            return writer.finish(streams)

    @contextmanager
    def writer(self, meta: EventBlockMeta, node: Node, encodings: Encodings) -> Iterator[EventBlockWriter]:
        """A writer whose block is published when the `with` ends without an error, and is gone if it does not."""
        with self._folders.publishing(meta.id) as temporary:
            writer = EventBlockWriter(temporary, meta, node, encodings)
            try:
                yield writer
            finally:
                writer.close()
            assert writer.finished

    def open(self, block_id: str) -> EventBlockReader:
        """Raises Corrupt when its footer cannot be read; its columns are checked as they are read."""
        return EventBlockReader(self._folders.directory(block_id))

    def verify(self, metas: Sequence[EventBlockMeta]) -> list[str]:
        """Everything that is wrong with blocks that the catalog names, as sentences. Reads all of them."""
        return check_event_blocks(metas, self.open)

    def remove(self, block_id: str) -> None:
        self._folders.remove(block_id)

    def remove_written(self, first_commit: int, last_commit: int, keep: Callable[[str], bool]) -> None:
        """Remove the blocks of exactly these commits, finished or not, except those to `keep`, by id: for a writer that
        ended without a word."""
        self._folders.remove_written(commits_in_id(first_commit, last_commit), keep)

    def set_aside(self, block_id: str, why: str) -> Damage:
        return self._folders.set_aside(block_id, why)
