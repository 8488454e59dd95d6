"""The blocks that a reading process has open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class OpenBlock(Protocol):
    @property
    def held_bytes(self) -> int:
        """Roughly the memory that it takes. Always the same."""

    def rest(self) -> None:
        """Close its file, which is opened again when it is read."""

    def close(self) -> None: ...


Reader = TypeVar("Reader", bound=OpenBlock)


class BlockCache(Generic[Reader]):
    """Keeps what is known of the blocks that were read last, and the files of the very last. Not for several threads.

    Bounded in bytes, as a block of 100,000 series holds 4 MB and one of events with 200 columns 3 MB, and in files, as
    a process often has no more than 1,024 descriptors.
    """

    def __init__(self, open_block: Callable[[str], Reader], max_bytes: int, max_files: int = 256) -> None:
        self._open = open_block
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._readers: OrderedDict[str, Reader] = OrderedDict()
        self._with_file: OrderedDict[str, Reader] = OrderedDict()
        self.held_bytes = 0
        """Roughly the memory that the blocks take."""

    def reader(self, block_id: str) -> Reader:
        """An open block, which the cache closes. Valid until the next call."""
        reader = self._readers.get(block_id)
        if reader is None:
            reader = self._readers[block_id] = self._open(block_id)
            self.held_bytes += reader.held_bytes
        self._readers.move_to_end(block_id)
        self._with_file[block_id] = reader
        self._with_file.move_to_end(block_id)
        while len(self._readers) > 1 and self.held_bytes > self._max_bytes:
            self._close(next(iter(self._readers)))
        while len(self._with_file) > self._max_files:
            self._with_file.popitem(last=False)[1].rest()
        return reader

    def _close(self, block_id: str) -> None:
        reader = self._readers.pop(block_id)
        self._with_file.pop(block_id, None)
        self.held_bytes -= reader.held_bytes
        reader.close()

    @property
    def open_blocks(self) -> list[str]:
        """Ids of the blocks that are open, the least recently used first."""
        return list(self._readers)

    def keep_only(self, block_ids: Iterable[str]) -> None:
        """Close every block that is not among `block_ids`: the others may be about to be removed."""
        for block_id in self._readers.keys() - set(block_ids):
            self._close(block_id)

    def close(self) -> None:
        self.keep_only(())
