"""Telling a data folder from somebody else's: nothing may be written to, or removed from, one that is not ours."""

from __future__ import annotations

import stat
from pathlib import Path

from streamgauge.errors import NotFound, StorageError
from streamgauge.store import fs, names

_LOCK_START = b'{"pid"'
_HARMLESS = frozenset({names.LOCK, "lost+found"})
"""A lock whose text is damaged, and what is in the root of each ext file system, so also in a new volume."""


def require_data_folder(data: Path) -> None:
    """Raises NotFound when `data` is no data folder, and StorageError when that cannot be found out."""
    kind = _kind_of(data)
    if kind is None:
        raise NotFound(f"there is no folder {data}")
    if not stat.S_ISDIR(kind):
        raise NotFound(f"{data} is a file, not a data folder")
    if _is_backup(data):
        raise NotFound(f"{data} holds backups and is no data folder; `streamgauge restore` makes one of them")
    if not is_data_folder(data):
        raise NotFound(f"{data} is no data folder: there is no {names.CATALOG}, log or block of streamgauge in it")


def refuse_foreign(data: Path) -> None:
    """Before a server makes `data` its own. Raises StorageError when it is a file, or a folder that holds other things:
    the server would empty their `tmp` and scatter its files among them. Hidden files do no harm."""
    kind = _kind_of(data)
    if kind is None:
        return
    if not stat.S_ISDIR(kind):
        raise StorageError(f"{data} is a file; streamgauge needs a folder: choose another with --data")
    if _is_backup(data):
        raise StorageError(
            f"{data} holds backups, which a server would change: make a data folder of one with `streamgauge restore`"
        )
    others = [name for name in fs.list_dir(data) if not name.startswith(".") and name not in _HARMLESS]
    if others and not is_data_folder(data):
        raise StorageError(
            f"{data} holds other things ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}) and no data of "
            "streamgauge: give it a folder of its own with --data"
        )


def is_data_folder(data: Path) -> bool:
    """Whether a folder holds anything that only streamgauge makes, be it damaged or not."""
    with fs.disk_errors(f"look into {data}"):
        if any(name.startswith((names.CATALOG, names.TOKENS)) for name in fs.list_dir(data)) or _has_lock(data):
            return True
        if any(names.segment_sequence(name) is not None for name in _names_in(names.log_dir(data))):
            return True
        blocks = (names.block_dir(data, name) for name in _names_in(names.blocks_dir(data)))
        events = (names.event_block_dir(data, name) for name in _names_in(names.event_blocks_dir(data)))
        if any(names.events_file(block).exists() for block in events):
            return True
        return any(
            file.exists() for block in blocks for file in (names.samples_file(block), names.aggregates_file(block))
        )


def _is_backup(data: Path) -> bool:
    with fs.disk_errors(f"look into {data}"):
        return (data / names.BACKUP_MARKER).exists()


def _names_in(path: Path) -> list[str]:
    return fs.list_dir(path) if path.is_dir() else []


def _has_lock(data: Path) -> bool:
    """An empty one counts: on a full disk the text of the lock is missing."""
    path = names.lock_file(data)
    return path.is_file() and fs.read_start(path, len(_LOCK_START)) in (b"", _LOCK_START)


def _kind_of(path: Path) -> int | None:
    """The mode of a file or folder; None when there is nothing."""
    try:
        with fs.disk_errors(f"look at {path}"):
            return path.stat().st_mode
    except FileNotFoundError:
        return None
