"""Batches that wait to be pushed, oldest first: on disk, so that no outage and no kill loses one.

A batch is in the buffer from the moment that `add` returns until `remove`. Files are named by a number that grows; a
batch that was too large for the server becomes two, which stand in its place: 000000000012.batch, then
000000000012-0.batch and 000000000012-1.batch. What cannot be read is renamed to end in .damaged, what the server
refuses in .refused; both go first when the folder is full. `buffer_file.py` has what is in a file.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from streamgauge.errors import Corrupt, FolderInUse, FormatTooNew, StorageError
from streamgauge.federate.batch import Batch, halves
from streamgauge.federate.buffer_file import HEAD_BYTES, About, about, read_about, read_batch, write_batch
from streamgauge.wire.metric_family_protobuf import encode

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

BATCH, DAMAGED, REFUSED, DRAFT = ".batch", ".damaged", ".refused", ".tmp"
_DIGITS = 12
MAX_IN_MEMORY = 20
"""Batches that are kept in memory while the disk takes none: an hour and a half at the usual interval."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch in the buffer. file_size: bytes on disk."""

    name: str
    about: About
    file_size: int
    batch: Batch | None = field(default=None, compare=False, repr=False)  # when it is in memory alone


class Buffer(Protocol):
    """Used on one thread at a time. lost: metrics that were given up before they were pushed, by reason."""

    lost: Counter[str]

    @property
    def bytes(self) -> int: ...

    @property
    def waiting(self) -> Sequence[Waiting]:
        """The batches, the oldest first."""

    def add(self, batch: Batch) -> None:
        """Raises StorageError when it is in memory alone, because the disk does not take it."""

    def load(self, one: Waiting) -> Batch | None:
        """None when it cannot be read; it is no longer waiting then."""

    def remove(self, done: Iterable[Waiting]) -> None: ...

    def refuse(self, one: Waiting) -> None:
        """The server takes it under no circumstances."""

    def split(self, one: Waiting) -> bool:
        """Make two batches of one. False when it has but one metric."""

    def drop_older(self, least: int) -> None:
        """Remove batches all of whose samples are older than `least` (ms)."""

    def take_faults(self) -> list[str]:
        """What was found wrong with files, in words, each once."""

    def close(self) -> None: ...


class DiskBuffer:
    """`limit`: bytes of all files in the folder. Raises StorageError where the folder cannot be used, and FolderInUse
    when another process uses it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.lost: Counter[str] = Counter()
        self._faults: list[str] = []
        self._folder = folder
        self._limit = limit
        self._waiting: list[Waiting] = []
        self._aside: list[tuple[str, int]] = []  # names and bytes
        self._number = 0  # the highest of a file, whatever has become of that
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(folder)
            self._scan()
        except OSError as error:
            raise StorageError(f"the buffer {folder} cannot be used: {_words(error)}") from error

    @property
    def bytes(self) -> int:
        return sum(one.file_size for one in self._waiting) + sum(size for _, size in self._aside)

    @property
    def waiting(self) -> Sequence[Waiting]:
        return tuple(self._waiting)

    def add(self, batch: Batch) -> None:
        self._number += 1
        name = f"{self._number:0{_DIGITS}d}{BATCH}"
        try:
            self._waiting.append(self._write(name, batch))
        except OSError as error:
            self._keep_in_memory(name, batch)
            raise StorageError(f"a batch is in memory only, as {self._folder} takes none: {_words(error)}") from error
        self._make_room()

    def load(self, one: Waiting) -> Batch | None:
        if one.batch is not None:
            return one.batch
        try:
            return read_batch((self._folder / one.name).read_bytes())
        except (OSError, Corrupt, FormatTooNew) as error:
            self._forget(one)
            self._set_aside(one.name, one.file_size, DAMAGED, error)
            self.lost["damaged"] += one.about.metrics
            return None

    def remove(self, done: Iterable[Waiting]) -> None:
        """A file that cannot be removed is pushed again after the next start, which is harmless."""
        for one in done:
            self._forget(one)
            with suppress(OSError):
                (self._folder / one.name).unlink(missing_ok=True)

    def refuse(self, one: Waiting) -> None:
        self._forget(one)
        self.lost["refused"] += one.about.metrics
        if one.batch is None:
            self._set_aside(one.name, one.file_size, REFUSED, None)

    def split(self, one: Waiting) -> bool:
        batch = self.load(one)
        parts = None if batch is None else halves(batch)
        if parts is None:
            return batch is None
        stem = one.name.removesuffix(BATCH)
        written = [
            self._write_or_keep(f"{stem}-{number}{BATCH}", part, one.batch is not None)
            for number, part in enumerate(parts)
        ]
        at = self._waiting.index(one) if one in self._waiting else 0
        self._waiting[at:at] = written
        self.remove([one])
        return True

    def drop_older(self, least: int) -> None:
        old = [one for one in self._waiting if one.about.newest < least]
        self.lost["old"] += sum(one.about.metrics for one in old)
        self.remove(old)

    def take_faults(self) -> list[str]:
        taken, self._faults = self._faults, []
        return taken

    def close(self) -> None:
        os.close(self._lock)

    def _forget(self, one: Waiting) -> None:
        if one in self._waiting:  # it may have been given up for want of room meanwhile
            self._waiting.remove(one)

    # ---- files ------------------------------------------------------------------------------------------------------

    def _scan(self) -> None:
        for path in sorted(self._folder.iterdir()):
            size = path.stat().st_size
            if path.name[:_DIGITS].isdecimal():
                self._number = max(self._number, int(path.name[:_DIGITS]))
            if path.suffix == DRAFT:
                path.unlink()
            elif path.suffix in (DAMAGED, REFUSED):
                self._aside.append((path.name, size))
            elif path.suffix == BATCH and path.name[:_DIGITS].isdecimal():
                try:
                    with path.open("rb") as file:
                        self._waiting.append(Waiting(path.name, read_about(file.read(HEAD_BYTES)), size))
                except FormatTooNew as error:
                    self._faults.append(f"{path} is left where it is: {error}")
                except Corrupt as error:
                    self._set_aside(path.name, size, DAMAGED, error)

    def _write(self, name: str, batch: Batch) -> Waiting:
        known, data = write_batch(batch)
        path = self._folder / name
        draft = path.with_suffix(DRAFT)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)
        return Waiting(name, known, len(data))

    def _write_or_keep(self, name: str, part: Batch, in_memory: bool) -> Waiting:
        if not in_memory:
            with suppress(OSError):
                return self._write(name, part)
        return _in_memory(name, part)

    def _keep_in_memory(self, name: str, batch: Batch) -> None:
        held = [one for one in self._waiting if one.batch is not None]
        if len(held) >= MAX_IN_MEMORY:
            self._give_up(held[0])
        self._waiting.append(_in_memory(name, batch))

    def _make_room(self) -> None:
        """Remove what was set aside, then the oldest batches, until the rest fits. The newest batch stays."""
        while self.bytes > self._limit and (self._aside or len(self._waiting) > 1):
            if self._aside:
                name, _ = self._aside.pop(0)
                with suppress(OSError):
                    (self._folder / name).unlink(missing_ok=True)
            else:
                self._give_up(self._waiting[0])

    def _give_up(self, one: Waiting) -> None:
        self.lost["full"] += one.about.metrics
        self.remove([one])

    def _set_aside(self, name: str, size: int, suffix: str, error: Exception | None) -> None:
        kept = name.removesuffix(BATCH) + suffix
        if error is not None:
            self._faults.append(f"{self._folder / name} is set aside as {kept}: {error}")
        with suppress(OSError):
            (self._folder / name).replace(self._folder / kept)
            self._aside.append((kept, size))


class LatestBuffer:
    """The latest batch, in memory: for servers that give samples their own time, to which a late one is a wrong one."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._waiting: list[Waiting] = []
        self._number = 0

    @property
    def bytes(self) -> int:
        return 0

    @property
    def waiting(self) -> Sequence[Waiting]:
        return tuple(self._waiting)

    def add(self, batch: Batch) -> None:
        self.lost["replaced"] += sum(one.about.metrics for one in self._waiting)
        self._number += 1
        self._waiting = [_in_memory(f"{self._number:0{_DIGITS}d}", batch)]

    def load(self, one: Waiting) -> Batch | None:
        return one.batch

    def remove(self, done: Iterable[Waiting]) -> None:
        gone = set(done)
        self._waiting = [one for one in self._waiting if one not in gone]

    def refuse(self, one: Waiting) -> None:
        self.lost["refused"] += one.about.metrics
        self.remove([one])

    def split(self, one: Waiting) -> bool:
        parts = halves(one.batch) if one.batch is not None else None
        if parts is None:
            return False
        if one in self._waiting:
            at = self._waiting.index(one)
            self._waiting[at : at + 1] = [_in_memory(f"{one.name}-{number}", part) for number, part in enumerate(parts)]
        return True

    def drop_older(self, least: int) -> None:
        old = [one for one in self._waiting if one.about.newest < least]
        self.lost["old"] += sum(one.about.metrics for one in old)
        self.remove(old)

    def take_faults(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


def _in_memory(name: str, batch: Batch) -> Waiting:
    return Waiting(name, about(batch, encode(batch.families)), 0, batch)


def _lock(folder: Path) -> int:
    """A descriptor that holds the folder as long as it is open. Raises FolderInUse."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise FolderInUse(f"another process uses the buffer {folder}: --buffer names another") from None
    return descriptor


def _sync_folder(folder: Path) -> None:
    """Make names durable. Windows has no such call: NTFS keeps a journal of them."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
