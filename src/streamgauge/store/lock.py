"""One server a data folder: an advisory lock of the operating system, which goes when the process does, however it
ends. The locked file says who holds it."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType

from streamgauge.errors import FolderInUse
from streamgauge.store import fs, names
from streamgauge.store.folder import refuse_foreign

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TRIES = 20
_BETWEEN_TRIES = 0.01
"""Seconds. `holder` takes the lock for some microseconds to see whether it is free; a server that starts just then
tries again."""
_LOCKED_BYTE = 1 << 30
"""On Windows a locked byte cannot be read by others: this one is far behind the text."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a folder. `pid` is 0 and `address` empty where the file does not tell."""

    pid: int
    address: str  # where it listens, as host:port; empty before it does
    started: int  # ms since the Unix epoch
    tls: bool = False  # whether TLS is spoken there
    key: str = field(default="", repr=False, compare=False)  # drawn at random: who knows it may read the folder


class FolderLock:
    """A held lock; made by `acquire`. A child process does not inherit it. Release it, or use it in a `with`."""

    def __init__(self, fd: int, holder: Holder) -> None:
        self._fd: int | None = fd
        self._holder = holder

    @property
    def key(self) -> str:
        """What only those can know who may read the folder."""
        return self._holder.key

    def announce(self, address: str, tls: bool = False) -> None:
        """Say where and how the holder listens, once it knows."""
        assert self._fd is not None, "the lock was released"
        self._holder = replace(self._holder, address=address, tls=tls)
        _write_holder(self._fd, self._holder)

    def release(self) -> None:
        """Let the folder go. The file stays: removing it would let two servers each lock a file of that name."""
        if self._fd is not None:
            _unlock(self._fd)
            fs.close(self._fd)
            self._fd = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(data: Path, address: str = "", started: int = 0) -> FolderLock:
    """Take the folder, which is made if it is not there.

    `address` is where the holder listens and `started` when it began (ms). Raises FolderInUse, naming the holder, and
    StorageError, also for a folder that holds somebody else's things.
    """
    refuse_foreign(data)
    fs.make_dir(data)
    path = names.lock_file(data)
    with fs.disk_errors(f"open {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | fs.BINARY, 0o640)  # Python opens files close-on-exec
    try:
        with fs.disk_errors(f"lock {path}"):
            if not _lock(fd):
                raise _in_use(data, _read_holder(fd))
        lock = FolderLock(fd, Holder(os.getpid(), address, started, key=secrets.token_hex(16)))
        lock.announce(address)
        return lock
    except BaseException:
        fs.close(fd)
        raise


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Keep others away from a folder that is no data folder, for the length of a `with`; it is made if it is not there.

    `what` is done in it, as in "backups in". Raises FolderInUse and StorageError.
    """
    fs.make_dir(folder)
    path = names.lock_file(folder)
    with fs.disk_errors(f"open {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | fs.BINARY, 0o640)
    try:
        with fs.disk_errors(f"lock {path}"):
            if not _lock(fd):
                raise FolderInUse(f"another process works on the {what} {folder}; wait for it, or stop it")
        yield
    finally:
        fs.close(fd)  # which lets it go


def _lock(fd: int) -> bool:
    for _ in range(_TRIES):
        if _try_lock(fd, exclusive=True):
            return True
        time.sleep(_BETWEEN_TRIES)
    return False


def holder(data: Path) -> Holder | None:
    """Who holds the folder now, or None. Needs no right to write."""
    path = names.lock_file(data)
    try:
        with fs.disk_errors(f"open {path}"):
            fd = os.open(path, os.O_RDONLY | fs.BINARY)
    except FileNotFoundError:
        return None
    try:
        with fs.disk_errors(f"lock {path}"):
            if not _try_lock(fd, exclusive=False):
                return _read_holder(fd)
            _unlock(fd)
        return None
    finally:
        fs.close(fd)


def _in_use(data: Path, by: Holder) -> FolderInUse:
    who = f"process {by.pid}" if by.pid else "another process"
    where = f", which listens on {by.address}" if by.address else ""
    return FolderInUse(f"{data} is in use by {who}{where}. Stop it, or give this one another folder with --data")


def _write_holder(fd: int, holder: Holder) -> None:
    text = json.dumps(asdict(holder)).encode() + b"\n"
    with suppress(OSError):  # on a full disk the lock holds all the same, and a server must start
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, text)
        os.ftruncate(fd, len(text))


def _read_holder(fd: int) -> Holder:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        fields = json.loads(os.read(fd, 4096))
        pid, address, started = int(fields["pid"]), str(fields["address"]), int(fields["started"])
        return Holder(pid, address, started, fields.get("tls") is True, str(fields.get("key", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, "", 0)


if sys.platform == "win32":

    def _try_lock(fd: int, exclusive: bool) -> bool:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(fd: int, exclusive: bool) -> bool:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
