"""What waits on disk: nothing is lost by a kill, and nothing that a disk does to it stops the client."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import Corrupt, FolderInUse, FormatTooNew, StorageError
from streamgauge.federate.batch import Batch
from streamgauge.federate.buffer import MAX_IN_MEMORY, DiskBuffer, LatestBuffer, Waiting
from streamgauge.federate.buffer_file import read_batch, write_batch
from streamgauge.wire.metric_family import Metric, MetricFamily, MetricType
from streamgauge.wire.push_part import Part

NOW = 1_790_000_000_000
LARGE = 1 << 30


def batch(number: int, metrics: int = 3) -> Batch:
    found = tuple(Metric((("i", str(i)),), MetricType.UNTYPED, float(number), NOW + number) for i in range(metrics))
    return Batch((MetricFamily("up", MetricType.UNTYPED, found),))


def numbers(buffer: DiskBuffer | LatestBuffer) -> list[int]:
    """Which batches wait, by their number."""
    loaded = [buffer.load(one) for one in buffer.waiting]
    return [one.newest - NOW for one in loaded if one is not None]


def test_batches_outlive_the_program_in_their_order(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, LARGE)
    for number in range(12):
        buffer.add(batch(number))
    buffer.remove(buffer.waiting[:3])
    buffer.close()
    again = DiskBuffer(tmp_path, LARGE)
    again.add(batch(99))
    assert numbers(again) == [*range(3, 12), 99]
    assert again.load(again.waiting[0]) == batch(3)
    assert (again.waiting[0].about.metrics, again.waiting[0].about.newest) == (3, NOW + 3)
    again.close()


def test_a_folder_is_used_by_one_process(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, LARGE)
    with pytest.raises(FolderInUse, match="another process uses the buffer"):
        DiskBuffer(tmp_path, LARGE)
    buffer.close()
    DiskBuffer(tmp_path, LARGE).close()


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        DiskBuffer(tmp_path / "file" / "folder", LARGE)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_others_cannot_read_it(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path / "buffer", LARGE)
    buffer.add(batch(1))
    assert (tmp_path / "buffer").stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "buffer").iterdir())
    buffer.close()


def test_damaged_files_are_set_aside_and_the_others_used(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, LARGE)
    for number in range(4):
        buffer.add(batch(number))
    paths = [tmp_path / one.name for one in buffer.waiting]
    buffer.close()
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    data = bytearray(paths[2].read_bytes())
    data[-3] ^= 1
    paths[2].write_bytes(data)
    (tmp_path / "000000000009.tmp").write_bytes(b"half a bat")
    (tmp_path / "notes.txt").write_text("not ours")

    again = DiskBuffer(tmp_path, LARGE)
    assert numbers(again) == [3]
    assert again.lost == {"damaged": 6}  # of the empty one nobody can say how many there were
    assert len(again.take_faults()) == 3
    assert again.take_faults() == []
    assert sorted(file.suffix for file in tmp_path.iterdir() if file.suffix == ".damaged") == [".damaged"] * 3
    assert not (tmp_path / "000000000009.tmp").exists()
    assert (tmp_path / "notes.txt").read_text() == "not ours"
    again.close()


def test_a_file_that_is_gone_is_no_crash(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, LARGE)
    buffer.add(batch(0))
    (tmp_path / buffer.waiting[0].name).unlink()
    assert buffer.load(buffer.waiting[0]) is None
    assert not buffer.waiting
    buffer.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    _, data = write_batch(batch(0))
    newer = data[:4] + b"\x02" + data[5:]
    with pytest.raises(FormatTooNew):
        read_batch(newer)
    (tmp_path / "000000000001.batch").write_bytes(newer)
    buffer = DiskBuffer(tmp_path, LARGE)
    assert not buffer.waiting
    assert "is left where it is" in buffer.take_faults()[0]
    assert (tmp_path / "000000000001.batch").exists()
    buffer.close()


def test_every_flipped_bit_and_every_cut_is_found() -> None:
    whole = write_batch(batch(5, metrics=10))[1]
    for place in set(range(len(whole))) - {6, 7}:  # these bytes mean nothing
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            with pytest.raises((Corrupt, FormatTooNew)):
                read_batch(bytes(data))
    for size in range(len(whole)):
        with pytest.raises(Corrupt):
            read_batch(whole[:size])


def test_beyond_the_limit_the_oldest_goes_and_is_counted(tmp_path: Path) -> None:
    size = len(write_batch(batch(0))[1])
    buffer = DiskBuffer(tmp_path, 3 * size + size // 2)
    for number in range(5):
        buffer.add(batch(number))
    assert numbers(buffer) == [2, 3, 4]
    assert buffer.lost == {"full": 6}
    assert buffer.bytes <= 3 * size + size // 2
    buffer.close()


def test_what_was_set_aside_goes_first(tmp_path: Path) -> None:
    size = len(write_batch(batch(0))[1])
    buffer = DiskBuffer(tmp_path, 2 * size + size // 2)
    buffer.add(batch(0))
    buffer.refuse(buffer.waiting[0])
    buffer.add(batch(1))
    assert (tmp_path / "000000000001.refused").exists()
    buffer.add(batch(2))
    assert not (tmp_path / "000000000001.refused").exists()
    assert numbers(buffer) == [1, 2]
    assert buffer.lost == {"refused": 3}
    buffer.close()


def test_what_was_set_aside_keeps_its_name(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, LARGE)
    buffer.add(batch(0))
    buffer.refuse(buffer.waiting[0])
    buffer.close()
    again = DiskBuffer(tmp_path, LARGE)
    again.add(batch(1))
    again.refuse(again.waiting[0])
    assert sorted(path.name for path in tmp_path.glob("*.refused")) == ["000000000001.refused", "000000000002.refused"]
    again.close()


def test_a_limit_smaller_than_a_batch_keeps_the_newest(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, 1)
    buffer.add(batch(0))
    buffer.add(batch(1))
    assert numbers(buffer) == [1]
    buffer.close()


def test_old_batches_are_dropped_and_counted(tmp_path: Path) -> None:
    for buffer in (DiskBuffer(tmp_path, LARGE), LatestBuffer()):
        buffer.add(batch(0))
        buffer.drop_older(NOW)
        assert numbers(buffer) == [0]
        buffer.drop_older(NOW + 1)
        assert numbers(buffer) == []
        assert +buffer.lost == {"old": 3}
        buffer.close()


def test_a_batch_becomes_two_in_its_place(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path, LARGE)
    for number in range(3):
        buffer.add(batch(number, metrics=5))
    assert buffer.split(buffer.waiting[1])
    assert buffer.split(buffer.waiting[1])
    buffer.close()
    again = DiskBuffer(tmp_path, LARGE)
    assert numbers(again) == [0, 1, 1, 1, 2]
    assert [one.about.metrics for one in again.waiting] == [5, 1, 1, 3, 5]
    loaded = [again.load(one) for one in again.waiting]
    whole = [Part.WHOLE]
    assert [one and one.part for one in loaded] == [*whole, Part.FIRST, Part.MIDDLE, Part.LAST, *whole]
    assert not again.split(again.waiting[1])
    again.close()


def test_a_batch_that_was_given_up_meanwhile_may_be_removed(tmp_path: Path) -> None:
    for buffer in (DiskBuffer(tmp_path, LARGE), LatestBuffer()):
        buffer.add(batch(0))
        gone = buffer.waiting[0]
        buffer.remove([gone])
        buffer.remove([gone])
        assert not buffer.waiting
        buffer.close()


def test_a_full_disk_keeps_batches_in_memory_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "buffer"
    buffer = DiskBuffer(folder, LARGE)
    buffer.add(batch(0))
    shutil.move(folder, tmp_path / "away")
    for number in range(1, MAX_IN_MEMORY + 3):
        with pytest.raises(StorageError, match="in memory only"):
            buffer.add(batch(number))
    shutil.move(tmp_path / "away", folder)
    buffer.add(batch(99))
    assert numbers(buffer) == [0, *range(3, MAX_IN_MEMORY + 3), 99]
    assert buffer.lost == {"full": 6}
    buffer.remove(buffer.waiting)
    assert not buffer.waiting
    buffer.close()


def test_without_a_disk_the_latest_is_kept() -> None:
    buffer = LatestBuffer()
    for number in range(3):
        buffer.add(batch(number))
    assert numbers(buffer) == [2]
    assert buffer.lost == {"replaced": 6}
    assert buffer.split(buffer.waiting[0])
    assert [one.about.metrics for one in buffer.waiting] == [1, 2]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_buffer import LARGE, batch
from streamgauge.federate.buffer import DiskBuffer

buffer = DiskBuffer(Path(sys.argv[1]), LARGE)
steps = int(sys.argv[3])
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
calls = 0
def counted(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == steps:
            kill()
        return real(*arguments, **options)
    setattr(os, name, call)
for name in ("open", "fsync", "replace", "unlink", "fdopen"):
    counted(name)
for number in range(3):
    buffer.add(batch(number))
    print(number, flush=True)
kill()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("steps", [2, 3, 4, 5, 7])
def test_a_kill_at_any_step_loses_no_batch(steps: int, tmp_path: Path) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(here), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    added = [int(line) for line in done.stdout.split()]
    buffer = DiskBuffer(tmp_path, LARGE)
    assert numbers(buffer)[: len(added)] == added
    assert set(numbers(buffer)) <= {0, 1, 2}
    assert not buffer.lost
    buffer.close()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["remove", "split", "refuse"]), st.integers(0, 3)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=15,
)


@settings(max_examples=15)
@given(operations=OPERATIONS)
def test_it_is_a_list_of_batches(operations: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("buffer")
    buffer = DiskBuffer(folder, LARGE)
    model: list[list[tuple[int, int]]] = []  # the metrics of each batch, as (batch, number)
    for number, (what, argument) in enumerate(operations):
        if what == "add":
            buffer.add(batch(number, argument))
            model.append([(number, i) for i in range(argument)])
        elif what == "reopen":
            buffer.close()
            buffer = DiskBuffer(folder, LARGE)
        elif model:
            at = argument % len(model)
            one = buffer.waiting[at]
            if what == "remove":
                buffer.remove([one])
                del model[at]
            elif what == "refuse":
                buffer.refuse(one)
                del model[at]
            elif buffer.split(one):
                half = len(model[at]) // 2
                model[at : at + 1] = [model[at][:half], model[at][half:]]
    assert [_content(buffer, one) for one in buffer.waiting] == model
    buffer.close()


def _content(buffer: DiskBuffer, one: Waiting) -> list[tuple[int, int]]:
    loaded = buffer.load(one)
    assert loaded is not None
    return [
        ((metric.timestamp or 0) - NOW, int(metric.labels[0][1] or 0)) for f in loaded.families for metric in f.metrics
    ]
