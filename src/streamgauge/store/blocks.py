"""The blocks port on a local folder: one directory a block, published by a rename and never changed afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from streamgauge.store import names
from streamgauge.store.block_encodings import FLUSHED, BlockEncoding
from streamgauge.store.block_folders import BlockFolders
from streamgauge.store.block_format import commits_in_id
from streamgauge.store.block_reader import LocalBlockReader, read_meta
from streamgauge.store.block_writer import BlockWriter
from streamgauge.store.damage import Damage
from streamgauge.store.patience import Patience
from streamgauge.store.ports import BlockMeta, SortedRows


class LocalBlocks:
    """`ports.Blocks` in the folder `data`. Holds no state: any number of processes may read, one writes.

    Where `read_only`, a scan removes and moves nothing; it is for a folder that is looked at without a server. What
    `patience` a scan has with a disk that gives nothing back.
    """

    def __init__(self, data: Path, read_only: bool = False, patience: Patience | None = None) -> None:
        self._folders = BlockFolders(data, names.blocks_dir(data))
        self._read_only = read_only
        self._patience = patience or Patience()

    def scan(self) -> tuple[list[BlockMeta], list[Damage]]:
        """Every whole block there is, ordered by id, from the footers; what cannot be read is set aside.

        For the start, while nobody uses the folder: what was half written is removed. Raises FormatTooNew for a block
        of a later version.
        """
        return self._folders.scan(read_meta, self._patience, self._read_only)

    def names(self) -> list[str]:
        """The ids of the blocks that are there, readable or not."""
        return self._folders.names()

    def write(self, meta: BlockMeta, rows: SortedRows) -> BlockMeta:
        with self.writer(meta, FLUSHED) as writer:
            writer.append(rows.ids, rows.counts, rows.times, rows.values)
            return writer.finish(rows.keys)

    @contextmanager
    def writer(self, meta: BlockMeta, encoding: BlockEncoding) -> Iterator[BlockWriter]:
        """A writer whose block is published when the `with` ends without an error, and is gone if it does not."""
        with self._folders.publishing(meta.id) as temporary:
            writer = BlockWriter(temporary, meta, encoding)
            try:
                yield writer
            finally:
                writer.close()
            assert writer.finished

    def open(self, block_id: str) -> LocalBlockReader:
        """Raises Corrupt when its series cannot be read; its rows are checked as they are read."""
        return LocalBlockReader(self._folders.directory(block_id))

    def remove(self, block_id: str) -> None:
        self._folders.remove(block_id)

    def remove_written(self, first_commit: int, last_commit: int, keep: Callable[[str], bool]) -> None:
        """Remove the blocks of exactly these commits, finished or not, except those to `keep`, by id: for a writer that
        ended without a word."""
        self._folders.remove_written(commits_in_id(first_commit, last_commit), keep)

    def set_aside(self, block_id: str, why: str) -> Damage:
        return self._folders.set_aside(block_id, why)


def live_blocks(found: Sequence[BlockMeta]) -> tuple[list[BlockMeta], list[BlockMeta]]:
    """Which of the blocks that are on disk make up the store, when no catalog says it: (live, superseded).

    A compaction that was interrupted leaves parents beside their output. Where the output is whole the parents go,
    otherwise the output does. Several outputs share their parent only where a late block was split by days, and are
    whole when they have as many samples as it. What a deletion was carried out in is one output, and lists a tombstone
    that its parent does not; a block of aggregates is one, too.
    """
    by_id = {meta.id: meta for meta in found}
    outputs: defaultdict[tuple[str, ...], list[BlockMeta]] = defaultdict(list)
    for meta in found:
        outputs[meta.parents].append(meta)
    superseded: set[str] = set()
    for parents, children in outputs.items():
        present = [by_id[parent] for parent in parents if parent in by_id]
        if len(parents) == 1 and present and _is_part(children, present[0]):
            superseded.update(child.id for child in children)
        else:
            superseded.update(parent.id for parent in present)
    live = [meta for meta in found if meta.id not in superseded]
    return live, [by_id[block_id] for block_id in sorted(superseded)]


def _is_part(children: Sequence[BlockMeta], parent: BlockMeta) -> bool:
    """Whether a split of a block was interrupted."""
    cleaned = any(set(child.tombstones) - set(parent.tombstones) for child in children)
    thinner = any(child.resolution for child in children)
    return not cleaned and not thinner and sum(child.samples for child in children) < parent.samples
