import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamgauge.errors import Overloaded, StorageError
from streamgauge.main import shortage
from streamgauge.store.shm import IDLE_BYTES, SharedMemory, attach, room
from streamgauge.store.shm_names import remove_leftovers, store_prefix

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory can be listed on Linux alone")


SHM = Path("/dev/shm")
STORE = secrets.token_hex(16)


def there(store_id: str) -> list[Path]:
    return sorted(SHM.glob(f"{store_prefix(store_id)}*"))


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(STORE)
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


def mapped(name: str) -> bool:
    return name in Path("/proc/self/maps").read_text()


@linux
def test_memory_is_unmapped_on_another_thread(memory: SharedMemory) -> None:
    """Giving back a merged segment of the head takes milliseconds, which the event loop does not have."""
    before = threading.active_count()
    name = memory.create(1 << 20).name
    assert mapped(name)
    memory.remove(name)
    assert threading.active_count() == before + 1
    memory.close()
    assert not mapped(name)


@linux
def test_what_has_an_array_is_not_unmapped_under_it(memory: SharedMemory) -> None:
    segment = memory.create(4096)
    array = segment.array(np.uint8, 0, 4096)
    array[5] = 7
    memory.remove(segment.name)
    memory.close()  # and what was to be unmapped has been
    assert mapped(segment.name)
    assert array[5] == 7
    name = segment.name
    del array, segment
    assert not mapped(name)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a segment for as long as it is mapped")
def test_what_is_not_there_or_too_small_is_a_storage_error(memory: SharedMemory) -> None:
    segment = memory.create(4096)
    with pytest.raises(StorageError, match=segment.name):
        attach(segment.name, 1 << 20)
    memory.remove(segment.name)
    with pytest.raises(StorageError, match=segment.name):
        attach(segment.name, 4096)


@linux
def test_recycled_memory_is_taken_again_under_a_new_name(memory: SharedMemory) -> None:
    segment = memory.take(1_000_000)
    assert segment.size >= 1_000_000
    segment.array(np.int64, 0, 3)[:] = [1, 2, 3]
    old = segment.name
    memory.recycle(old)
    memory.recycle(old)
    assert memory.used_bytes == 0
    again = memory.take(990_000)
    assert (again.size, again.array(np.int64, 0, 3).tolist()) == (segment.size, [1, 2, 3])
    again.array(np.int64, 0, 1)[0] = 7
    assert attach(again.name, 990_000).array(np.int64, 0, 1)[0] == 7
    with pytest.raises(StorageError, match=old):
        attach(old, 990_000)
    assert memory.used_bytes == segment.size
    memory.close()
    assert there(STORE) == []


@linux
def test_what_is_recycled_is_of_use_and_bounded(memory: SharedMemory) -> None:
    large = memory.take(IDLE_BYTES // 2)
    memory.recycle(large.name)
    assert memory.take(IDLE_BYTES // 4).size < large.size  # of which it would waste half
    assert memory.take(IDLE_BYTES // 2 + IDLE_BYTES // 8).size > large.size
    small = [memory.take(IDLE_BYTES // 8) for _ in range(6)]
    for segment in small:
        memory.recycle(segment.name)
    with pytest.raises(StorageError):  # the largest goes first
        attach(large.name, 1)
    assert {memory.take(IDLE_BYTES // 8).size for _ in range(6)} == {small[0].size}


@linux
def test_recycled_memory_that_somebody_removed_is_made_anew(memory: SharedMemory) -> None:
    segment = memory.take(4096)
    memory.recycle(segment.name)
    (SHM / segment.name).unlink()
    again = memory.take(4096)
    assert attach(again.name, 4096).array(np.uint8, 0, 1)[0] == 0
    assert memory.used_bytes == again.size


@linux
def test_recycled_memory_is_given_back_where_there_is_no_room_for_more(memory: SharedMemory) -> None:
    names = [memory.take(IDLE_BYTES // 4).name for _ in range(3)]
    for name in names:
        memory.recycle(name)
    assert all(map(mapped, names))
    with pytest.raises(Overloaded):
        memory.create(1 << 50)
    assert not any(map(mapped, names)), "until then its memory is taken"
    assert [path.name[-6:] for path in there(STORE)] == ["-owner"]


@linux
def test_no_room_is_a_clear_error_and_leaves_nothing(memory: SharedMemory) -> None:
    with pytest.raises(Overloaded, match="--shm-size"):
        memory.create(1 << 50)
    assert memory.used_bytes == 0
    assert [path.name[-6:] for path in there(STORE)] == ["-owner"]


@linux
def test_memory_is_allocated_when_it_is_created(memory: SharedMemory) -> None:
    segment = memory.create(1 << 20)
    assert (Path("/dev/shm") / segment.name).stat().st_blocks * 512 == 1 << 20


def test_names_fit_macos(memory: SharedMemory) -> None:
    assert len(f"/{memory.new_name()}") <= 30 - 10  # room for a sequence of millions, and for an array's suffix


@linux
def test_leftovers_of_this_store_alone_are_removed() -> None:
    mine, other = secrets.token_hex(16), secrets.token_hex(16)
    for name in ("abcdef-owner", "abcdef-0", "abcdef-1i0", "012345-0"):  # the last one's owner has gone already
        (SHM / f"{store_prefix(mine)}{name}").touch()
    kept = SharedMemory(other)
    segment = kept.create(64)
    assert remove_leftovers(mine) == 3
    assert there(mine) == []
    assert remove_leftovers(mine) == remove_leftovers(other) == 0
    assert attach(segment.name, 64)
    kept.close()
    assert there(other) == []


@linux
def test_a_start_on_a_copy_of_the_folder_leaves_the_memory_of_the_other_server_alone() -> None:
    """Two containers that share /dev/shm, each with its own copy at the same path."""
    copied = secrets.token_hex(16)
    first = SharedMemory(copied)
    segment = first.create(64)
    assert remove_leftovers(copied) == 0
    second = SharedMemory(copied)
    own = second.create(64)
    assert segment.name != own.name
    first.close()
    assert remove_leftovers(copied) == 0
    assert attach(own.name, 64)
    second.close()
    assert there(copied) == []


SERVER = """
import concurrent.futures, multiprocessing, sys, time
from streamgauge.store.shm import SharedMemory, attach

if __name__ == "__main__":
    memory = SharedMemory(sys.argv[1])
    names = [memory.take(4096).name for _ in range(3)]
    memory.recycle(names.pop())
    names.append(memory.take(4096).name)
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
    return (sys.executable, "-W", "error", str(tmp_path / "server.py"), STORE)


def test_workers_come_and_go_and_nothing_is_unlinked_or_complained_about(server: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([*server, "close"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@linux
def test_a_killed_server_leaves_nothing_that_the_next_start_does_not_clear(
    server: tuple[str, ...],
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*server, "stay"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        names = process.stdout.readline().split()
        assert len(names) == 3
        process.send_signal(signal.SIGKILL)
    remove_leftovers(STORE)
    assert there(STORE) == []
    for name in names:
        with pytest.raises(StorageError):
            attach(name, 4096)
