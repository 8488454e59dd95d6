"""The disk through `fs`: what it leaves behind when a step fails, and what it says."""

import errno
import os
import sys
from pathlib import Path

import pytest

from streamgauge.errors import Corrupt, ReadOnly, StorageError, SyncFailed
from streamgauge.store import fs, names
from streamgauge.store.failpoints import armed

OPERATIONS = ("fs.open", "fs.write", "fs.sync", "fs.rename")


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_write_atomically_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    fs.write_atomically(path, b"old")
    fs.write_atomically(path, b"new")
    assert content_of(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_write_atomically_leaves_old_or_new_whatever_fails(tmp_path: Path, operation: str, number: int) -> None:
    path = tmp_path / "file"
    fs.write_atomically(path, b"old")
    raised: list[StorageError] = []
    for time in (1, 2):
        with armed(operation, errno.errorcode[number].lower(), first=time, last=time):
            try:
                fs.write_atomically(path, b"new")
            except StorageError as error:
                raised.append(error)
        assert content_of(tmp_path) in ({"file": b"old"}, {"file": b"new"})
    assert raised
    full = number != errno.EIO and operation != "fs.sync"
    assert all(isinstance(error, ReadOnly) == full and str(tmp_path) in error.message for error in raised)


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, ReadOnly, "free some space"),
        (errno.EROFS, ReadOnly, "mounted for writing"),
        (errno.EIO, SyncFailed, "was not acknowledged"),
    ],
)
def test_a_write_says_what_happened_and_what_to_do(
    tmp_path: Path, number: int, kind: type[StorageError], says: str
) -> None:
    with armed("fs.write", errno.errorcode[number].lower()), pytest.raises(kind, match=says) as error:
        fs.write_durably(tmp_path / "file", b"x")
    assert os.strerror(number) in error.value.message
    assert str(tmp_path / "file") in error.value.message


def test_many_buffers_are_written_in_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    buffers = [bytes([n % 251]) * (n % 7) for n in range(3000)]
    fd = fs.create(path)
    fs.write(fd, buffers, path)
    fs.close(fd)
    assert path.read_bytes() == b"".join(buffers)


@pytest.mark.skipif(sys.platform == "win32", reason="os.pipe has no limit to set there")
def test_a_short_write_is_carried_on(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    room = 0
    while True:
        try:
            room += os.write(write_end, bytes(4096))
        except BlockingIOError:
            break
    os.read(read_end, 8192)
    with pytest.raises(StorageError):  # the rest is tried, and the reason it does not fit is told
        fs.write(write_end, [b"x" * 8192, b"y"], tmp_path / "pipe")
    os.close(write_end)
    assert os.read(read_end, room + 1).endswith(b"x" * 8192)
    os.close(read_end)


def test_what_a_disk_does_not_give_back_is_zeros_and_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 10_000)
    reads = []

    def second_sector_fails() -> None:
        reads.append(len(reads))
        if len(reads) in (1, 3):  # the file in one piece, then its second sector
            raise OSError(errno.EIO, "bad sector")

    with armed("fs.read", second_sector_fails):
        data, lost = fs.read_file(path, 1 << 20)
    assert lost == [(4096, 8192)]
    assert bytes(data) == b"a" * 4096 + bytes(4096) + b"a" * 1808


def test_a_file_larger_than_it_can_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with pytest.raises(Corrupt, match="3 bytes"):
        fs.read_file(path, 2)
    with pytest.raises(FileNotFoundError):
        fs.read_file(tmp_path / "none", 2)


def test_publish_dir_gives_the_name_once_all_is_durable(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "a").write_bytes(b"1")
    (draft / "b").write_bytes(b"2")
    for operation, times in (("fs.open", 2), ("fs.sync", 3), ("fs.rename", 1)):
        for time in range(1, times + 1):
            with armed(operation, "eio", time, time), pytest.raises(StorageError):
                fs.publish_dir(draft, tmp_path / "final")
            assert not (tmp_path / "final").exists()
    fs.publish_dir(draft, tmp_path / "final")
    assert content_of(tmp_path) == {"final/a": b"1", "final/b": b"2"}


def test_remove_tree_never_shows_half_a_directory(tmp_path: Path) -> None:
    tmp, block = tmp_path / "tmp", tmp_path / "block"
    tmp.mkdir()
    fs.remove_tree(block, tmp)  # not there: no error
    for _ in range(2):
        block.mkdir()
        (block / "a").write_bytes(b"1")
        (block / "b").write_bytes(b"2")
        with armed("fs.sync", "eio"), pytest.raises(StorageError):
            fs.remove_tree(block, tmp)
        assert not block.exists()
    assert len(content_of(tmp)) == 4
    fs.clear_tmp(tmp_path)
    assert content_of(tmp_path) == {}
    assert tmp.is_dir()


def test_set_aside_keeps_everything_and_says_why(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        path = tmp_path / "1.log"
        path.write_bytes(content)
        damage = fs.set_aside(path, tmp_path, "its checksum is wrong")
        assert damage.path == str(path)
        assert "its checksum is wrong; it is kept as " in damage.what
        assert not path.exists()
    kept = content_of(names.set_aside_dir(tmp_path))
    assert (kept["1.log"], kept["1.log.1"]) == (b"first", b"second")
    assert b"its checksum is wrong" in kept["1.log.txt"]
    assert b"its checksum is wrong" in kept["1.log.1.txt"]


@pytest.mark.parametrize("operation", ["fs.open", "fs.rename", "fs.sync"])
def test_what_cannot_be_moved_stays_and_the_start_goes_on(tmp_path: Path, operation: str) -> None:
    path = tmp_path / "block"
    path.mkdir()
    with armed(operation, "erofs"):
        damage = fs.set_aside(path, tmp_path, "a footer is missing")
    assert "a footer is missing" in damage.what
    assert path.exists() != (names.set_aside_dir(tmp_path) / "block").exists()


def test_free_bytes_asks_the_file_system(tmp_path: Path) -> None:
    assert fs.free_bytes(tmp_path) > 0
    with pytest.raises(FileNotFoundError):
        fs.free_bytes(tmp_path / "none")
