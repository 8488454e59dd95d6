"""One process a folder, and whoever comes second learns who was first."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import streamgauge
from streamgauge.errors import FolderInUse, ReadOnly
from streamgauge.store import lock, names
from streamgauge.store.failpoints import armed

HOLDER = """
import sys, time
from pathlib import Path
from streamgauge.store import lock
held = lock.acquire(Path(sys.argv[1]), "127.0.0.1:4318", 1234)
print("held", flush=True)
sys.stdin.read()
"""


def start_holder(data: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, data],
        env={**os.environ, "PYTHONPATH": str(Path(streamgauge.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        with pytest.raises(FolderInUse) as error:
            lock.acquire(tmp_path)
        assert f"process {process.pid}, which listens on 127.0.0.1:4318" in error.value.message
        assert lock.holder(tmp_path) == lock.Holder(process.pid, "127.0.0.1:4318", 1234)
        process.communicate()
    assert lock.holder(tmp_path) is None
    lock.acquire(tmp_path).release()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        process.kill()
    assert lock.holder(tmp_path) is None
    lock.acquire(tmp_path).release()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with lock.acquire(tmp_path / "new" / "folder", "here:1") as held:
        with pytest.raises(FolderInUse, match="here:1"):
            lock.acquire(tmp_path / "new" / "folder")
        held.announce("there:22")
        found = lock.holder(tmp_path / "new" / "folder")
        assert found == lock.Holder(os.getpid(), "there:22", 0)
        held.announce("a:3")
        assert lock.holder(tmp_path / "new" / "folder") == lock.Holder(os.getpid(), "a:3", 0)
    held.release()  # a second time is no error
    assert lock.holder(tmp_path / "new" / "folder") is None


def test_no_folder_or_no_file_is_held_by_nobody(tmp_path: Path) -> None:
    assert lock.holder(tmp_path) is None
    assert lock.holder(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == [], "asking changes nothing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff\xfe"])
def test_a_lock_file_that_says_nothing_still_locks(tmp_path: Path, content: bytes) -> None:
    with lock.acquire(tmp_path):
        names.lock_file(tmp_path).write_bytes(content)
        assert lock.holder(tmp_path) == lock.Holder(0, "", 0)
        with pytest.raises(FolderInUse, match="another process"):
            lock.acquire(tmp_path)


def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    held = lock.acquire(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False
    )
    held.release()
    lock.acquire(tmp_path).release()
    child.communicate()


def test_somebody_who_only_looks_does_not_keep_a_server_out(tmp_path: Path) -> None:
    lock.acquire(tmp_path).release()
    looked = threading.Event()

    def look() -> None:
        while not looked.is_set():
            lock.holder(tmp_path)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(200):
            lock.acquire(tmp_path).release()
    finally:
        looked.set()
        watcher.join()


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    with armed("fs.open", "erofs"), pytest.raises(ReadOnly, match="create"):
        lock.acquire(tmp_path / "new")


def test_the_key_is_another_at_each_start_and_is_read_by_who_may_read_the_file(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        with lock.acquire(tmp_path) as held:
            found = lock.holder(tmp_path)
            assert found is not None
            assert found.key == held.key
            held.announce("there:22")
            assert held.key not in repr(lock.holder(tmp_path))
            keys.append(held.key)
    assert len(set(keys)) == 2
    assert all(len(key) == 32 for key in keys)


def test_one_at_a_time_in_a_folder_of_another_kind(tmp_path: Path) -> None:
    with (
        lock.alone(tmp_path / "new", "backups in"),
        pytest.raises(FolderInUse, match=f"backups in {tmp_path / 'new'}"),
        lock.alone(tmp_path / "new", "backups in"),
    ):
        pass
    with lock.alone(tmp_path / "new", "backups in"):
        pass
