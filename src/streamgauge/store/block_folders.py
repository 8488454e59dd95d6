"""The directories of blocks of one kind: each is published by a rename, and never changed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from streamgauge.errors import Corrupt, FormatTooNew, StorageError
from streamgauge.store import fs, names
from streamgauge.store.damage import Damage
from streamgauge.store.patience import Patience

Meta = TypeVar("Meta")


class BlockFolders:
    """The directories in `folder`, which is one of the data folder `data`. Holds no state."""

    def __init__(self, data: Path, folder: Path) -> None:
        self._data = data
        self._folder = folder

    def directory(self, block_id: str) -> Path:
        return self._folder / block_id

    def names(self) -> list[str]:
        """The ids of the blocks that are there, readable or not, in order."""
        return [name for name in fs.list_dir(self._folder) if self.directory(name).is_dir()]

    def scan(
        self, read_meta: Callable[[Path], Meta], patience: Patience, read_only: bool
    ) -> tuple[list[Meta], list[Damage]]:
        """What `read_meta` says of every whole block, ordered by id. Where not `read_only`, what cannot be read is set
        aside, and what was half written is removed. Raises FormatTooNew for a block of a later version."""
        if not read_only:
            fs.clear_tmp(self._data)
        found: list[Meta] = []
        damage: list[Damage] = []
        for block_id in self.names():
            directory = self.directory(block_id)
            try:
                found.append(patience.read(partial(read_meta, directory)))
            except FormatTooNew:
                raise
            except Corrupt as error:
                if read_only:
                    damage.append(Damage(str(directory), f"{error.message}; it is not used"))
                else:
                    damage.append(self.set_aside(block_id, error.message))
        return found, damage

    @contextmanager
    def publishing(self, block_id: str) -> Iterator[Path]:
        """A directory that gets the block's name when the `with` ends without an error, and is gone if it does not."""
        temporary = fs.free_name(names.tmp_dir(self._data), block_id)
        fs.make_dir(self._folder)
        fs.make_dir(temporary)
        try:
            yield temporary
            fs.publish_dir(temporary, self.directory(block_id))
        except BaseException:
            # A publication whose last sync failed has moved the block to its name, where nobody may find it.
            left = temporary if temporary.exists() else self.directory(block_id)
            with suppress(StorageError):  # what stays all the same is no part of the catalog
                fs.remove_tree(left, names.tmp_dir(self._data))
            raise

    def remove(self, block_id: str) -> None:
        fs.remove_tree(self.directory(block_id), names.tmp_dir(self._data))

    def remove_written(self, written: str, keep: Callable[[str], bool]) -> None:
        """Remove the blocks that have `written` in their ids, finished or not, except those to `keep`, by id."""
        for block_id in self.names():
            if written in block_id and not keep(block_id):
                self.remove(block_id)
        tmp = names.tmp_dir(self._data)
        for name in fs.list_dir(tmp):
            if written in name:
                fs.remove_tree(tmp / name, tmp)

    def set_aside(self, block_id: str, why: str) -> Damage:
        return fs.set_aside(self.directory(block_id), self._data, why)
