"""Making a backup: copy the blocks that the destination lacks, verify them there, and write the manifest last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streamgauge.backup import place as places
from streamgauge.backup.blocks import BlockFolder, Summing, sum_of, there
from streamgauge.backup.manifest import BlockFiles, FileSum, Manifest
from streamgauge.backup.place import Place, block_path
from streamgauge.errors import Corrupt, StorageError
from streamgauge.store.events.ports import EventBlockMeta
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import BlockMeta, CatalogState
from streamgauge.store.token_file import read_raw

VOUCHERS = 3
"""Earlier backups that are asked for what is there. The last knows nearly all, and a bucket may have a thousand."""


class Progress(Protocol):
    """Is told in bytes. What is to come is told once, before anything is done."""

    def expect(self, size: int) -> None: ...

    def copied(self, size: int) -> None: ...

    def verified(self, size: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """copy: make copies where hard links could be. verify: read back what was written."""

    copy: bool = False
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made, in bytes."""

    name: str
    blocks: int
    size: int
    new_blocks: int
    copied: int
    linked: int  # second names for the store's own files


class BackupWriter:
    """Makes one backup of the blocks of `state` in the folder `data`, which must not go meanwhile."""

    def __init__(self, data: Path, state: CatalogState, place: Place, options: Options, progress: Progress) -> None:
        self._data = data
        self._state = state
        self._place = place
        self._options = options
        self._progress = progress
        self._there: Mapping[str, int] = {}  # files in the place, and their sizes
        self._bytes: Counter[str] = Counter()

    def run(self, now: int) -> Made:
        """`now`: ms. Raises StorageError.

        After a kill at any point before its end there are the backups that there were; what is whole of its blocks is
        not copied again.
        """
        places.prepare(self._place)
        known = self._vouched_for()
        self._there = self._place.sizes(places.BLOCKS)
        blocks: list[BlockMeta | EventBlockMeta] = [*self._state.blocks, *self._state.events.blocks]
        files: dict[str, BlockFiles] = {
            meta.id: known[meta.id] for meta in blocks if self._is_there(meta.id, known.get(meta.id, {}))
        }
        lacking = [meta for meta in blocks if meta.id not in files]
        self._progress.expect(sum(meta.bytes for meta in lacking))
        for meta in lacking:
            files[meta.id] = self._block(meta)
        manifest = Manifest(now, self._state, {meta.id: files[meta.id] for meta in blocks}, read_raw(self._data))
        name = self._publish(manifest)
        return Made(name, len(files), manifest.size, len(lacking), self._bytes["copied"], self._bytes["linked"])

    def _vouched_for(self) -> dict[str, BlockFiles]:
        """What the last backups say of blocks: their files were verified when they were written."""
        known: dict[str, BlockFiles] = {}
        for name in places.backups(self._place)[-VOUCHERS:]:
            try:
                known |= places.manifest(self._place, name).files
            except Corrupt:  # its blocks are verified like new ones; a check tells of it
                continue
        return known

    def _is_there(self, block: str, files: BlockFiles) -> bool:
        return bool(files) and all(
            self._there.get(block_path(block, name)) == file.size for name, file in files.items()
        )

    def _block(self, meta: BlockMeta | EventBlockMeta) -> BlockFiles:
        block = BlockFolder(self._data, meta)
        files = {}
        for name in block.files:
            files[name] = self._file(block, name, block_path(meta.id, name))
            hit("backup.after_file")
        return files

    def _file(self, block: BlockFolder, name: str, path: str) -> FileSum:
        """Bring one file there. An earlier run that was killed may have left it, whole or not."""
        if self._there.get(path) == block.size(name):
            expected = sum_of(block.pieces(name), self._progress.verified)
            if self._read_back(path) == expected:
                return expected
        if (linked := self._link(block, name, path)) is not None:
            return linked
        expected = self._copy(block, name, path)
        if self._options.verify and self._read_back(path) != expected:
            raise Corrupt(f"{path} in {self._place.name} does not read back as it was written; its disk fails")
        return expected

    def _link(self, block: BlockFolder, name: str, path: str) -> FileSum | None:
        if self._options.copy:
            return None
        with there(block.path(name)):
            if not self._place.link(path, block.path(name)):
                return None
        linked = sum_of(block.pieces(name), self._progress.verified)  # the very bytes that are there
        self._bytes["linked"] += linked.size
        return linked

    def _copy(self, block: BlockFolder, name: str, path: str) -> FileSum:
        summing = Summing(block.pieces(name), self._progress.copied)
        self._place.write(path, summing)
        self._bytes["copied"] += summing.sum().size
        return summing.sum()

    def _read_back(self, path: str) -> FileSum:
        return sum_of(self._place.read(path), self._progress.verified)

    def _publish(self, manifest: Manifest) -> str:
        """Write the manifest, once every file that it names is there."""
        self._there = self._place.sizes(places.BLOCKS)
        for block, files in manifest.files.items():
            if not self._is_there(block, files):
                raise StorageError(f"block {block} is not whole in {self._place.name}: something else changes it")
        name = places.backup_name(manifest.made, places.backups(self._place))
        hit("backup.before_manifest")
        self._place.write(places.backup_path(name), [manifest.encode()])
        hit("backup.after_manifest")
        if places.manifest(self._place, name) != manifest:
            raise Corrupt(f"{places.backup_path(name)} in {self._place.name} does not read back as it was written")
        return name
