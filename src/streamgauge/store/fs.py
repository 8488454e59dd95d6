"""The one module that knows how each platform writes, syncs and renames. Its guarantees:

- what `sync_file` returns from is on the disk's medium, not in a cache of the system or of the drive;
- `replace`, `publish_dir` and `write_atomically` show a reader, and a start after a power cut, the old state or the
  whole new one, and have returned only when it is the new one;
- every OSError comes out as a StorageError that says what to do. Reading what is not there is FileNotFoundError.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from streamgauge.errors import Corrupt, StorageError
from streamgauge.store import names
from streamgauge.store.damage import Damage
from streamgauge.store.disk_errors import storage_error, sync_error, write_error
from streamgauge.store.failpoints import hit

if sys.platform == "darwin":
    import fcntl

Buffer = bytes | bytearray | memoryview

BINARY = getattr(os, "O_BINARY", 0)  # without it Windows translates line ends
_IOV_MAX = 1024  # the limit of Linux and macOS; POSIX promises 16
_READ_PIECE = 1 << 20
_COPY_PIECE = 1 << 20
_CANNOT_LINK = frozenset(
    {errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)
"""Another file system, one without hard links, one that allows no more of them, or somebody else's file."""
_SECTOR = 4096
"""The unit in which a failing disk loses data; a piece that cannot be read is tried again in these."""


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Translate an OSError raised within, except FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, doing) from error


# ---- files that are open ------------------------------------------------------------------------------------------


def create(path: Path, mode: int = 0o640) -> int:
    """A new file, open for writing; its descriptor. It is an error if the name is taken."""
    with disk_errors(f"create {path}"):
        hit("fs.open")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode)


def write(fd: int, buffers: Sequence[Buffer], path: Path) -> None:
    """Write all the buffers at the descriptor's position. `path` is for the error, after which any part of it may
    have been written."""
    try:
        hit("fs.write")
        for start in range(0, len(buffers), _IOV_MAX):
            _write_some(fd, buffers[start : start + _IOV_MAX])
    except OSError as error:
        raise write_error(error, f"write {path}") from error


def _write_some(fd: int, buffers: Sequence[Buffer]) -> None:
    if sys.platform == "win32":
        written = 0
    else:
        written = os.writev(fd, buffers)
        if written == sum(map(len, buffers)):
            return
    rest = memoryview(b"".join(buffers))[written:]  # a short write: the next call tells why, if there is a reason
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_zeros(fd: int, offset: int, size: int) -> int:
    """Write zeros where something will be written later, as far as that goes; where they end. To sync what takes their
    place changes nothing of the file but these bytes, which is half the work of making the file longer."""
    if sys.platform == "win32":
        return offset
    try:
        return offset + os.pwrite(fd, bytes(size), offset)
    except OSError:  # what is written in their place will tell
        return offset


def sync_file(fd: int, path: Path) -> None:
    """Make what was written durable. Never call it again after it failed: the system may have dropped the pages and
    would then report success."""
    try:
        hit("fs.sync")
        if sys.platform == "linux":
            os.fdatasync(fd)
        elif sys.platform == "darwin":
            _sync_drive(fd)
        else:
            os.fsync(fd)
    except OSError as error:
        raise sync_error(error, f"sync {path}") from error


if sys.platform == "darwin":

    def _sync_drive(fd: int) -> None:
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone stops at the drive's cache
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise
            os.fsync(fd)  # network file systems have no such call


def cut(fd: int, size: int) -> None:
    """Cut an open file to `size` bytes, not durably."""
    with disk_errors(f"cut a file to {size} bytes"):
        hit("fs.write")
        os.ftruncate(fd, size)


def close(fd: int) -> None:
    """Close a file of which everything that matters is synced: what close itself reports then tells nothing."""
    with suppress(OSError):
        os.close(fd)


# ---- files as a whole ---------------------------------------------------------------------------------------------


def read_file(path: Path, limit: int) -> tuple[memoryview, list[tuple[int, int]]]:
    """The bytes of a file and the stretches (from, to) that the disk does not give back, which are zeros.

    A memory map would be no better: it turns an unreadable sector into a SIGBUS. Raises FileNotFoundError, Corrupt
    when the file has more than `limit` bytes, and StorageError when it cannot be opened.
    """
    with disk_errors(f"read {path}"):
        hit("fs.open")
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise Corrupt(f"{path} has {size} bytes where at most {limit} are possible")
            import numpy as np  # here, as a start looks at files before it has time for that

            data = np.zeros(size, np.uint8).data  # unlike a bytearray, zeroed by the system as it is filled
            return data.toreadonly(), _read_into(file, data)


def size_of(path: Path) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    with disk_errors(f"look at {path}"):
        return path.stat().st_size


def size_of_files(folder: Path) -> int:
    """Bytes of the files that stand in a folder; 0 where there is none."""
    total = 0
    for name in list_dir(folder):
        with suppress(FileNotFoundError):  # it was removed meanwhile
            total += size_of(folder / name)
    return total


def read_start(path: Path, size: int) -> memoryview:
    """The first `size` bytes of a file, fewer where it ends or the medium fails."""
    with disk_errors(f"read {path}"):
        hit("fs.open")
        with path.open("rb", buffering=0) as file:
            data = memoryview(bytearray(min(size, os.fstat(file.fileno()).st_size)))
            return data.toreadonly() if _read_piece(file, data, 0) else memoryview(b"")


def _read_into(file: FileIO, data: memoryview) -> list[tuple[int, int]]:
    lost: list[tuple[int, int]] = []
    for start in range(0, len(data), _READ_PIECE):
        piece = data[start : start + _READ_PIECE]
        if _read_piece(file, piece, start):
            continue
        for at in range(0, len(piece), _SECTOR):
            sector = piece[at : at + _SECTOR]
            if not _read_piece(file, sector, start + at):
                sector[:] = bytes(len(sector))
                lost.append((start + at, start + at + len(sector)))
    return lost


def _read_piece(file: FileIO, piece: memoryview, at: int) -> bool:
    """Fill `piece` from offset `at`. False when the medium fails; errors that concern more than this are raised."""
    try:
        hit("fs.read")
        file.seek(at)
        while piece and (count := file.readinto(piece)):
            piece = piece[count:]
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    return True


def write_durably(path: Path, content: Buffer) -> None:
    """Write and sync a new file. Its name is durable once its directory is synced."""
    write_pieces(path, [content])


def write_atomically(path: Path, content: Buffer, mode: int = 0o640) -> None:
    """Replace a file, or make it. Not for two writers of one name at the same time. mode: of the file."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        remove_file(temporary)
        write_pieces(temporary, [content], mode)
        replace(temporary, path)
    except StorageError:
        with suppress(StorageError):
            remove_file(temporary)
        raise


def link(source: Path, target: Path) -> bool:
    """Give a finished file a second name, which is durable once its directory is synced. False where that cannot be.

    Raises FileNotFoundError."""
    with disk_errors(f"link {target} to {source}"):
        try:
            hit("fs.link")
            os.link(source, target)
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                return False
            raise
        return True


def copy_durably(source: Path, target: Path) -> None:
    """Make a synced copy of a file. Its name is durable once its directory is synced. Raises FileNotFoundError."""
    write_pieces(target, pieces_of(source))


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file from its first to its last byte, 1 MiB at a time. Raises FileNotFoundError, with the first piece."""
    with disk_errors(f"read {path}"):
        hit("fs.open")
        file = path.open("rb", buffering=0)
    with file:
        while piece := _next_piece(file, path):
            yield piece


def _next_piece(file: FileIO, path: Path) -> bytes:
    with disk_errors(f"read {path}"):
        hit("fs.read")
        return file.read(_COPY_PIECE)


def write_pieces(path: Path, pieces: Iterable[Buffer], mode: int = 0o640) -> None:
    """Write and sync a new file, a piece after the other. Its name is durable once its directory is synced."""
    fd = create(path, mode)
    try:
        for piece in pieces:
            write(fd, [piece], path)
        sync_file(fd, path)
    finally:
        os.close(fd)


def replace(temporary: Path, final: Path) -> None:
    """Give a synced file its final name, in place of what has it now."""
    with disk_errors(f"rename {temporary} to {final}"):
        hit("fs.rename")
        os.replace(temporary, final)
    sync_dir(final.parent)


def truncate(path: Path, size: int) -> None:
    """Cut a file, durably."""
    with disk_errors(f"cut {path} to {size} bytes"):
        hit("fs.open")
        fd = os.open(path, os.O_WRONLY | BINARY)
    try:
        try:
            hit("fs.write")
            os.ftruncate(fd, size)
        except OSError as error:
            raise write_error(error, f"cut {path} to {size} bytes") from error
        sync_file(fd, path)
    finally:
        os.close(fd)


def remove_file(path: Path) -> None:
    """Remove a file; none is no error. Durable once its directory is synced."""
    with disk_errors(f"remove {path}"), suppress(FileNotFoundError):
        hit("fs.remove")
        os.unlink(path)


# ---- directories --------------------------------------------------------------------------------------------------


def make_dir(path: Path) -> None:
    """Make a directory and those above it, durably. One that is there is no error."""
    if path.is_dir():
        return
    make_dir(path.parent)
    with disk_errors(f"create {path}"):
        hit("fs.open")
        os.makedirs(path, mode=0o750, exist_ok=True)
    sync_dir(path.parent)


def list_dir(path: Path) -> list[str]:
    """The names in a directory, sorted; none where there is no directory."""
    with disk_errors(f"list {path}"), suppress(FileNotFoundError):
        return sorted(os.listdir(path))
    return []


def sync_dir(path: Path) -> None:
    """Make the names in a directory durable. Windows has no such call: NTFS keeps a journal of them."""
    if sys.platform != "win32":
        try:
            hit("fs.sync")
            _sync_open_dir(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without the notion, such as some network ones
                raise sync_error(error, f"sync {path}") from error


def _sync_open_dir(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish_dir(temporary: Path, final: Path) -> None:
    """Give a directory of finished files its final name, which must be free, once all of it is durable."""
    for file in sorted(temporary.iterdir()):
        with disk_errors(f"open {file}"):
            hit("fs.open")
            fd = os.open(file, os.O_RDWR | BINARY)  # Windows flushes only what is open for writing
        try:
            sync_file(fd, file)
        finally:
            os.close(fd)
    sync_dir(temporary)
    hit("block.before_rename")
    with disk_errors(f"rename {temporary} to {final}"):
        hit("fs.rename")
        os.rename(temporary, final)
    hit("block.after_rename")
    sync_dir(final.parent)


def remove_tree(path: Path, tmp: Path) -> None:
    """Remove a directory and all in it; none is no error.

    It is renamed into `tmp` first, so that at no instant half of it stands under its name; what a crash leaves in
    `tmp` goes at the next start.
    """
    if not path.exists():
        return
    doomed = free_name(tmp, path.name)
    with disk_errors(f"remove {path}"):
        hit("fs.remove")
        os.rename(path, doomed)
    sync_dir(path.parent)
    with disk_errors(f"remove {doomed}"):
        shutil.rmtree(doomed)


def remove_all(path: Path) -> None:
    """Remove a file, or a directory and all in it; none is no error. A kill leaves part of it under its name."""
    with disk_errors(f"remove {path}"), suppress(FileNotFoundError):
        hit("fs.remove")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            os.unlink(path)


def clear_tmp(data: Path) -> None:
    """Make the folder's tmp directory, empty. For the start, while nobody uses it."""
    tmp = names.tmp_dir(data)
    with disk_errors(f"empty {tmp}"), suppress(FileNotFoundError):
        hit("fs.remove")
        shutil.rmtree(tmp)
    make_dir(tmp)


def free_bytes(path: Path) -> int:
    """Bytes that this process may still write to the file system that holds `path`."""
    with disk_errors(f"ask for the free space of {path}"):
        return shutil.disk_usage(path).free


# ---- damage -------------------------------------------------------------------------------------------------------


def free_name(folder: Path, name: str) -> Path:
    """`name` in `folder`, with a number behind it if that is taken."""
    path, number = folder / name, 0
    while os.path.lexists(path):
        number += 1
        path = folder / f"{name}.{number}"
    return path


def set_aside(path: Path, data: Path, why: str) -> Damage:
    """Move a damaged file or directory out of the way, with the reason in a .txt beside it. Never raises: a disk that
    lets nothing be moved must not keep the server from starting."""
    folder = names.set_aside_dir(data)
    try:
        make_dir(folder)
        kept = free_name(folder, path.name)
        with disk_errors(f"rename {path} to {kept}"):
            hit("fs.rename")
            os.rename(path, kept)
    except (StorageError, FileNotFoundError) as error:
        return Damage(str(path), f"{why}; it is left where it is and not used, as it could not be moved ({error})")
    with suppress(StorageError):  # after a power cut it may stand where it was, and be found damaged again
        sync_dir(folder)
        sync_dir(path.parent)
    _write_reason(kept, path, why)
    return Damage(str(path), f"{why}; it is kept as {kept}")


def keep_copy(content: Buffer, name: str, origin: Path, data: Path, why: str) -> Path:
    """Keep bytes that are about to be cut off `origin`, in the folder for damaged things. Returns where.

    Raises StorageError; then nothing may be cut.
    """
    folder = names.set_aside_dir(data)
    make_dir(folder)
    kept = free_name(folder, name)
    write_durably(kept, content)
    sync_dir(folder)
    _write_reason(kept, origin, why)
    return kept


def _write_reason(kept: Path, origin: Path, why: str) -> None:
    with suppress(StorageError):  # the damaged thing itself is safe; its note is a courtesy
        write_durably(free_name(kept.parent, f"{kept.name}.txt"), f"from {origin}\n{why}\n".encode())
