"""Backups in a folder of a mounted file system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from streamgauge.errors import NotFound
from streamgauge.store import fs, names
from streamgauge.store.lock import alone


class FolderPlace:
    """Implements `place.Place`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return str(self._root)

    def alone(self) -> AbstractContextManager[None]:
        return alone(self._root, "backups in")

    def is_empty(self) -> bool:
        ours = (names.LOCK, _half_written(names.BACKUP_MARKER))
        return not [name for name in fs.list_dir(self._root) if name not in ours and not name.startswith(".")]

    def sizes(self, under: str) -> dict[str, int]:
        """What is half written does not count."""
        found: dict[str, int] = {}
        for folder, _, files in os.walk(self._root / under):
            for file in files:
                path = Path(folder, file)
                if path.suffix != ".tmp":
                    found[path.relative_to(self._root).as_posix()] = fs.size_of(path)
        return found

    def read(self, path: str) -> Iterator[bytes]:
        try:
            yield from fs.pieces_of(self._root / path)
        except FileNotFoundError:
            raise NotFound(f"there is no {path} in {self.name}") from None

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        target = self._root / path
        fs.make_dir(target.parent)
        temporary = target.with_name(_half_written(target.name))
        fs.remove_file(temporary)
        try:
            fs.write_pieces(temporary, pieces)
            fs.replace(temporary, target)
        except BaseException:
            with suppress(Exception):
                fs.remove_file(temporary)
            raise

    def link(self, path: str, source: Path) -> bool:
        target = self._root / path
        fs.make_dir(target.parent)
        fs.remove_file(target)
        if not fs.link(source, target):
            return False
        fs.sync_dir(target.parent)
        return True

    def remove(self, path: str) -> None:
        fs.remove_file(self._root / path)

    def remove_folder(self, path: str) -> None:
        fs.remove_all(self._root / path)


def _half_written(name: str) -> str:
    return f"{name}.tmp"
