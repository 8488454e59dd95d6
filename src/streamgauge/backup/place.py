"""Where backups are kept: the port that a folder and a bucket implement, and what things in it are called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from streamgauge.backup.manifest import Manifest, decode
from streamgauge.errors import Corrupt, FormatTooNew, NotFound, StorageError
from streamgauge.store import names

MARKER = names.BACKUP_MARKER
BLOCKS = "blocks"
BACKUPS = "backups"
LAYOUT_VERSION = 1

_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(Protocol):
    """Files by paths with slashes. Each is there whole, and durable, or not at all.

    Every method raises StorageError; messages name the place and never hold a secret.
    """

    @property
    def name(self) -> str:
        """As messages call it."""

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other backups away, where that can be done. Raises FolderInUse."""

    def is_empty(self) -> bool:
        """Whether nothing at all is there; for a bucket, under the prefix."""

    def sizes(self, under: str) -> Mapping[str, int]:
        """The bytes of each file in a folder and those below it, by its path. None where there is no such folder."""

    def read(self, path: str) -> Iterator[bytes]:
        """A file in pieces. Raises NotFound, with the first piece."""

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        """Make or replace a file."""

    def link(self, path: str, source: Path) -> bool:
        """Make or replace a file by a second name for a finished one. False where that cannot be."""

    def remove(self, path: str) -> None:
        """Remove a file; none is no error."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder and all in it; none is no error."""


def block_path(block: str, file: str) -> str:
    return f"{BLOCKS}/{block}/{file}"


def backup_path(name: str) -> str:
    return f"{BACKUPS}/{name}.json"


def prepare(place: Place) -> None:
    """Make a place one for backups. Raises StorageError when it holds other things, and FormatTooNew."""
    if is_prepared(place):
        return
    if not place.is_empty():
        raise StorageError(f"{place.name} holds other things and no backup: give backups a place of their own")
    place.write(MARKER, [json.dumps({"streamgauge backup": LAYOUT_VERSION}).encode() + b"\n"])


def is_prepared(place: Place) -> bool:
    """Whether backups are kept there. Raises FormatTooNew, and Corrupt for somebody else's file of the name."""
    try:
        raw = b"".join(place.read(MARKER))
    except NotFound:
        return False
    try:
        version = int(json.loads(raw)["streamgauge backup"])
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"{MARKER} in {place.name} is not what streamgauge has written") from None
    if version > LAYOUT_VERSION:
        raise FormatTooNew(
            f"{place.name} is of layout {version} and this streamgauge knows layouts up to {LAYOUT_VERSION}"
        )
    return True


def require(place: Place) -> None:
    """Raises NotFound when no backups are kept there."""
    if not is_prepared(place):
        raise NotFound(f"there is no backup in {place.name}")


def backups(place: Place) -> list[str]:
    """The names of the backups, the oldest first."""
    found = (path.rpartition("/")[2].removesuffix(".json") for path in place.sizes(BACKUPS))
    return sorted(name for name in found if _NAME.fullmatch(name))


def manifest(place: Place, name: str) -> Manifest:
    """Raises NotFound, Corrupt and FormatTooNew."""
    if not _NAME.fullmatch(name):
        raise NotFound(f'"{name[:64]}" is not the name of a backup; they are like {backup_name(0, ())}')
    path = backup_path(name)
    return decode(b"".join(place.read(path)), f"{path} in {place.name}")


def backup_name(now: int, taken: Iterable[str]) -> str:
    """A name for a backup that is made at `now` (ms): the time, or one soon after that is free."""
    names = frozenset(taken)
    while (name := _written(now)) in names:
        now += 1
    return name


def _written(time: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=time)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
