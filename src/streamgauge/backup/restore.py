"""Making a data folder of a backup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from streamgauge.backup import place as places
from streamgauge.backup.blocks import Summing
from streamgauge.backup.manifest import Manifest
from streamgauge.backup.place import Place
from streamgauge.backup.write import Progress
from streamgauge.errors import Corrupt, NotFound, StorageError
from streamgauge.store import fs, names
from streamgauge.store.catalog import SqliteCatalog
from streamgauge.store.failpoints import hit
from streamgauge.store.lock import alone
from streamgauge.store.token_file import write_raw


def choose(place: Place, name: str | None) -> str:
    """The backup of this name, or the newest. Raises NotFound."""
    places.require(place)
    listed = places.backups(place)
    if not listed:
        raise NotFound(f"there is no backup in {place.name}; one that was not finished does not count")
    if name is not None and name not in listed:
        raise NotFound(f'there is no backup "{name[:64]}" in {place.name}; restore --list shows those that are')
    return name or listed[-1]


def restore(place: Place, manifest: Manifest, target: Path, progress: Progress) -> None:
    """Make the data folder `target`, which must not be there, or be empty.

    It is made beside its place and renamed when it is whole and durable: until then there is nothing of that name. What
    a kill leaves is removed by the next attempt. Raises StorageError.
    """
    target = Path(os.path.abspath(target))
    refuse_occupied(target)
    draft = names.restore_draft(target)
    with alone(draft, "restore to"):
        _empty(draft)
        try:
            progress.expect(manifest.size)
            for block in manifest.files:
                _block(place, manifest, block, draft, progress)
                hit("restore.after_block")
            if manifest.tokens is not None:
                write_raw(draft, manifest.tokens)
            SqliteCatalog.create(draft, manifest.state).close()
            hit("restore.before_rename")
            refuse_occupied(target)
        except BaseException:
            _discard(draft)
            raise
    fs.remove_file(names.lock_file(draft))
    with suppress(OSError):
        target.rmdir()  # an empty one
    fs.replace(draft, target)


def refuse_occupied(target: Path) -> None:
    """Raises StorageError when something is at `target` that a restore would replace or mix with."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() or os.path.ismount(target):
        what = "a symbolic link" if target.is_symlink() else "a mount point"
        raise StorageError(f"{target} is {what}, which cannot be replaced by a folder; name a folder in it")
    if not target.is_dir():
        raise StorageError(f"{target} is a file; name a folder that is not there yet")
    if held := fs.list_dir(target):
        some = ", ".join(held[:3]) + (", …" if len(held) > 3 else "")
        raise StorageError(
            f"{target} holds something already ({some}) and is left as it is; name a folder that is not there yet, or "
            "move this one away"
        )


def _empty(draft: Path) -> None:
    """Remove what an attempt that was killed has left, but for the lock that is held."""
    for name in fs.list_dir(draft):
        if name != names.LOCK:
            fs.remove_all(draft / name)


def _discard(draft: Path) -> None:
    with suppress(StorageError):
        fs.remove_all(draft)


def _block(place: Place, manifest: Manifest, block: str, draft: Path, progress: Progress) -> None:
    of_events = names.EVENTS in manifest.files[block]
    folder = names.event_block_dir(draft, block) if of_events else names.block_dir(draft, block)
    fs.make_dir(folder)
    for name, expected in manifest.files[block].items():
        path = places.block_path(block, name)
        summing = Summing(_read(place, path, expected.size), progress.copied)
        fs.write_pieces(folder / name, summing)
        if summing.sum() != expected:
            raise _damaged(place, path)
    fs.sync_dir(folder)


def _read(place: Place, path: str, size: int) -> Iterator[bytes]:
    """A file, and no more than it may have: what has no end must not fill the disk."""
    try:
        for piece in place.read(path):
            size -= len(piece)
            if size < 0:
                raise _damaged(place, path)
            yield piece
    except NotFound as error:
        raise Corrupt(f"{error.message}, and nothing was restored") from None


def _damaged(place: Place, path: str) -> Corrupt:
    return Corrupt(
        f"{path} in {place.name} is damaged, and nothing was restored; `streamgauge backup --verify-only` tells what "
        "else is, and --backup chooses an older backup"
    )
