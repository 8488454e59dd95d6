import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamgauge.errors import Overloaded, StorageError
from streamgauge.main import shortage
from streamgauge.store.shm import SharedMemory, attach, remove_leftovers, room

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory can be listed on Linux alone")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[SharedMemory]:
    memory = SharedMemory(tmp_path)
    yield memory
    memory.close()


def test_room_is_what_the_system_has_for_it() -> None:
    """And enough memory is nothing to warn of, while Docker's 64 MB for 4 million samples are."""
    free = room()
    assert free is None or 0 < free <= shutil.disk_usage("/dev/shm").total
    assert shortage(4_000_000, 64 << 20) is not None
    assert shortage(4_000_000, 512 << 20) is None
    assert shortage(4_000_000, None) is None


def test_what_is_written_is_read_by_name(memory: SharedMemory) -> None:
    segment = memory.create(4096)
    assert not segment.array(np.uint8, 0, 4096).any()
    segment.array(np.int64, 8, 3)[:] = [1, 2, 3]
    reader = attach(segment.name, 4096)
    assert reader.array(np.int64, 8, 3).tolist() == [1, 2, 3]
    segment.array(np.int64, 8, 3)[1] = 7
    assert reader.array(np.int64, 8, 3).tolist() == [1, 7, 3]


def test_a_reader_cannot_write(memory: SharedMemory) -> None:
    reader = attach(memory.create(64).name, 64).array(np.uint8, 0, 64)
    with pytest.raises(ValueError, match="read-only"):
        reader[0] = 1


def test_removed_memory_stays_for_those_who_have_it(memory: SharedMemory) -> None:
    segment = memory.create(64)
    segment.array(np.uint8, 0, 1)[0] = 9
    seen = attach(segment.name, 64).array(np.uint8, 0, 64)
    assert memory.used_bytes == 64
    memory.remove(segment.name)
    memory.remove(segment.name)
    assert memory.used_bytes == 0
    del segment
    assert seen[0] == 9


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a segment for as long as it is mapped")
def test_what_is_not_there_or_too_small_is_a_storage_error(memory: SharedMemory) -> None:
    segment = memory.create(4096)
    with pytest.raises(StorageError, match=segment.name):
        attach(segment.name, 1 << 20)
    memory.remove(segment.name)
    with pytest.raises(StorageError, match=segment.name):
        attach(segment.name, 4096)


@linux
def test_no_room_is_a_clear_error_and_leaves_nothing(memory: SharedMemory, tmp_path: Path) -> None:
    with pytest.raises(Overloaded, match="--shm-size"):
        memory.create(1 << 50)
    assert memory.used_bytes == 0
    assert remove_leftovers(tmp_path) == 0


@linux
def test_memory_is_allocated_when_it_is_created(memory: SharedMemory) -> None:
    segment = memory.create(1 << 20)
    assert (Path("/dev/shm") / segment.name).stat().st_blocks * 512 == 1 << 20


def test_names_fit_macos(memory: SharedMemory) -> None:
    assert len(f"/{memory.new_name()}") <= 30 - 10  # room for a sequence of millions, and for an array's suffix


@linux
def test_leftovers_of_this_folder_alone_are_removed(tmp_path: Path) -> None:
    mine, other = SharedMemory(tmp_path / "a"), SharedMemory(tmp_path / "b")
    mine.create(64)
    mine.create(64)
    kept = other.create(64)
    assert remove_leftovers(tmp_path / "a") == 2
    assert remove_leftovers(tmp_path / "a") == 0
    assert attach(kept.name, 64)
    mine.close()
    other.close()


SERVER = """
import concurrent.futures, multiprocessing, sys, time
from pathlib import Path
from streamgauge.main import shortage
from streamgauge.store.shm import SharedMemory, attach, remove_leftovers, room

if __name__ == "__main__":
    memory = SharedMemory(Path(sys.argv[1]))
    names = [memory.create(4096).name for _ in range(3)]
    for _ in range(2):
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as workers:
            for name in names:
                workers.submit(attach, name, 4096).exception()
    for name in names:
        attach(name, 4096)
    if sys.argv[2] == "close":
        memory.close()
    else:
        print(*names, flush=True)
        time.sleep(60)
"""


@pytest.fixture
def server(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "server.py").write_text(SERVER)
    return (sys.executable, "-W", "error", str(tmp_path / "server.py"), str(tmp_path))


def test_workers_come_and_go_and_nothing_is_unlinked_or_complained_about(server: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([*server, "close"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@linux
def test_a_killed_server_leaves_nothing_that_the_next_start_does_not_clear(
    server: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*server, "stay"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        names = process.stdout.readline().split()
        assert len(names) == 3
        process.send_signal(signal.SIGKILL)
    remove_leftovers(tmp_path)
    for name in names:
        with pytest.raises(StorageError):
            attach(name, 4096)
