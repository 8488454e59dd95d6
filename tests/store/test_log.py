"""The log keeps what it acknowledged, and says what it cannot give back."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import streamgauge
from streamgauge.errors import FormatTooNew, ReadOnly, StorageError, SyncFailed
from streamgauge.store import failpoints, names
from streamgauge.store.failpoints import armed
from streamgauge.store.log import AHEAD_BYTES, SEGMENT_BYTES, SegmentLog
from streamgauge.store.ports import Record, RecordKind
from streamgauge.store.replay import log_store_id
from streamgauge.store.segment import FRAME_BYTES, HEADER_BYTES, Header, decode_header, encode_frame, frame_bytes
from streamgauge.testing.thorough import examples

STORE = "000102030405060708090a0b0c0d0e0f"
SMALL = 300  # bytes of a segment: three or four records
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of syncs, none of them to survive

Records = list[tuple[int, int, bytes]]


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder where a sync costs nothing, for tests that need hundreds."""
    if IN_MEMORY is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield Path(folder)


def open_log(data: Path, **options: int) -> tuple[SegmentLog, Records]:
    """A log and what it replays."""
    log = SegmentLog(data, STORE, **{"segment_bytes": SMALL, **options})
    return log, [(record.commit, record.kind, bytes(record.payload)) for record in log.replay()]


def records_of(commit: int) -> list[Record]:
    """One or two records, of sizes that need padding and sizes that do not."""
    return [
        Record(commit, RecordKind.SAMPLES, bytes([commit % 256]) * (8 + (commit + n) % 24))
        for n in range(commit % 2 + 1)
    ]


def plain(*commits: int) -> Records:
    return [(record.commit, record.kind, bytes(record.payload)) for commit in commits for record in records_of(commit)]


def append(log: SegmentLog, commit: int) -> None:
    records = records_of(commit)
    log.reserve(sum(frame_bytes(len(record.payload)) for record in records))
    log.append(records)


def fill(data: Path, commits: int) -> list[Path]:
    """A log of several segments holding the commits from 1; its files."""
    log, _ = open_log(data)
    for commit in range(1, commits + 1):
        append(log, commit)
    log.close()
    return files(data)


def files(data: Path) -> list[Path]:
    return sorted(names.log_dir(data).iterdir())


def kept(data: Path) -> list[str]:
    folder = names.set_aside_dir(data)
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".txt") if folder.exists() else []


# ---- what it is for -----------------------------------------------------------------------------------------------


def test_what_was_appended_is_replayed_in_order(tmp_path: Path) -> None:
    assert len(fill(tmp_path, 20)) > 3
    log, found = open_log(tmp_path)
    assert found == plain(*range(1, 21))
    assert not log.damage
    assert log.last_commit == 20


def test_small_appends_have_zeros_ahead_of_them_which_are_cut_off_in_the_end(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    sizes = []
    for commit in range(1, 21):
        append(log, commit)
        sizes.append(files(tmp_path)[0].stat().st_size)
    assert len(set(sizes)) == 1
    assert sizes[0] > AHEAD_BYTES
    killed = tmp_path / "killed"
    shutil.copytree(names.log_dir(tmp_path), names.log_dir(killed))
    log.close()
    assert files(tmp_path)[0].stat().st_size < AHEAD_BYTES
    for data in (tmp_path, killed):
        again, found = open_log(data)
        assert (found, list(again.damage), kept(data)) == (plain(*range(1, 21)), [], [])
    assert files(killed)[0].read_bytes() == files(tmp_path)[0].read_bytes()


def test_zeros_are_written_again_when_they_are_used_up_and_not_for_large_appends(quick_path: Path) -> None:
    log, _ = open_log(quick_path, segment_bytes=4 * AHEAD_BYTES)
    log.reserve(1)
    ends = []
    for commit, size in enumerate([1000, AHEAD_BYTES, 1000, *[AHEAD_BYTES // 8] * 15], 1):
        log.append([Record(commit, 1, bytes([1]) * size)])
        ends.append(files(quick_path)[0].stat().st_size)
    first, large, small, *_ = ends
    assert (large < first + AHEAD_BYTES, small > large + AHEAD_BYTES) == (True, True)
    assert len(set(ends[2:11])) == 2, "eight appends are as much as was written ahead"
    assert ends[-1] < 4 * AHEAD_BYTES, "nothing is written ahead of the end of a segment"


def test_an_end_that_is_torn_in_front_of_zeros_is_cut_off_with_them(quick_path: Path) -> None:
    log, _ = open_log(quick_path / "source", segment_bytes=SEGMENT_BYTES)
    for commit in (1, 2):
        append(log, commit)
    whole = files(quick_path / "source")[0].read_bytes()
    start = HEADER_BYTES + sum(frame_bytes(len(record.payload)) for record in records_of(1))
    last = FRAME_BYTES + len(records_of(2)[0].payload)
    for cut in range(start, start + last, 5):
        data = quick_path / str(cut)
        names.log_dir(data).mkdir(parents=True)
        (names.log_dir(data) / files(quick_path / "source")[0].name).write_bytes(whole[:cut].ljust(len(whole), b"\0"))
        again, found = open_log(data)
        torn = whole[start:cut].rstrip(b"\0")
        assert found == plain(1)
        assert [str(len(torn)) in damage.what for damage in again.damage] == [True] * bool(torn)
        assert len(kept(data)) == bool(torn)
        assert files(data)[0].stat().st_size == start


def test_a_disk_that_takes_no_zeros_takes_what_fits(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    log, _ = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    small_files(1000)
    for commit in (1, 2, 3):
        append(log, commit)
    small_files(-1)
    assert files(tmp_path)[0].stat().st_size <= 1000
    assert open_log(tmp_path)[1] == plain(1, 2, 3)


def test_reserve_says_when_series_must_be_defined_again(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path)
    assert log.reserve(100)
    assert log.reserve(100), "still empty: whoever asked before may have failed since"
    log.append([Record(1, 1, bytes(100))])
    assert not log.reserve(100)
    assert log.reserve(200)
    log.append([Record(2, 1, bytes(5000))])  # more than was reserved, or than a segment has, is no error
    assert log.reserve(1)
    reopened, found = open_log(tmp_path)
    assert [len(payload) for _, _, payload in found] == [100, 5000]
    assert reopened.reserve(1), "a segment of an earlier process is never continued"


def test_kinds_of_a_later_version_are_preserved(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path)
    log.reserve(10)
    log.append([Record(1, 40_000, b"whatever"), Record(1, 2, b"")])
    assert open_log(tmp_path)[1] == [(1, 40_000, b"whatever"), (1, 2, b"")]


def test_payloads_are_aligned_views_that_cannot_be_written(tmp_path: Path) -> None:
    fill(tmp_path, 8)
    for record in SegmentLog(tmp_path, STORE).replay():
        column = np.frombuffer(record.payload[:8], np.int64)
        assert column.flags.aligned
        assert not column.flags.writeable


def test_after_a_rotation_everything_before_it_can_be_trimmed(quick_path: Path) -> None:
    log, _ = open_log(quick_path)
    assert (log.rotate(), log.may_hold(5)) == (0, False)
    append(log, 1)
    append(log, 2)
    assert log.rotate() == 2
    append(log, 3)
    assert len(files(quick_path)) == 2
    assert [log.may_hold(commit) for commit in (0, 1, 2)] == [False, True, True]
    log.trim(2)
    assert [log.may_hold(commit) for commit in (1, 2, 3)] == [False, False, True]
    assert log.rotate() == 3
    log.trim(3)
    assert (files(quick_path), log.may_hold(9)) == ([], False)
    assert log.rotate() == 3
    append(log, 4)
    reopened, found = open_log(quick_path, flushed_through=3)
    assert (found, not reopened.damage) == (plain(4), True)
    assert [reopened.may_hold(commit) for commit in (3, 4)] == [False, True]


def test_trim_removes_what_blocks_hold_and_no_more(quick_path: Path) -> None:
    fill(quick_path, 12)
    log, _ = open_log(quick_path)
    append(log, 13)
    for through in (0, 5, 5, 12, 13):
        log.trim(through)
        still = [commit for commit, _, _ in open_log(quick_path, flushed_through=through)[1]]
        assert set(range(through + 1, 14)) <= set(still)
        assert still == sorted(still)
    assert len(files(quick_path)) == 1, "the open segment stays"
    append(log, 14)
    log.close()
    reopened, found = open_log(quick_path, flushed_through=13)
    assert found == plain(13, 14)
    assert not reopened.damage
    reopened.trim(14)
    assert files(quick_path) == []
    append(reopened, 15)
    assert open_log(quick_path, flushed_through=14)[1] == plain(15)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    *_, last = fill(tmp_path, 12)
    last.write_bytes(last.read_bytes()[:-3])
    (names.log_dir(tmp_path) / f"{99:020d}.log").write_bytes(b"torn")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    log, found = open_log(tmp_path, writable=False)
    assert plain(*range(1, 12)) == found[: len(plain(*range(1, 12)))]
    assert log.damage
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (names.log_dir(tmp_path) / "notes.txt").write_text("mine")
    log, found = open_log(tmp_path)
    assert found == plain(1, 2, 3)
    log.trim(3)
    assert [path.name for path in files(tmp_path)] == ["notes.txt"]


def test_a_segment_of_another_folder_is_set_aside(tmp_path: Path) -> None:
    fill(tmp_path / "ours", 4)
    other = SegmentLog(tmp_path / "other", "f" * 32)
    assert list(other.replay()) == []
    append(other, 7)
    foreign = names.segment_file(tmp_path / "ours", 9)
    shutil.copy(files(tmp_path / "other")[0], foreign)
    shutil.copy(files(tmp_path / "ours")[0], names.segment_file(tmp_path / "ours", 8))
    log, found = open_log(tmp_path / "ours")
    assert found == plain(1, 2, 3, 4)
    assert len(log.damage) == 2
    assert kept(tmp_path / "ours") == [f"{8:020d}.log", f"{9:020d}.log"]


def test_a_folder_without_catalog_learns_its_store_from_the_log(tmp_path: Path) -> None:
    assert log_store_id(tmp_path) is None
    fill(tmp_path, 4)
    assert log_store_id(tmp_path) == STORE


def test_a_later_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    first, *_ = fill(tmp_path, 12)
    header = decode_header(memoryview(first.read_bytes()))
    first.write_bytes(later_format(header) + first.read_bytes()[HEADER_BYTES:])
    before = first.read_bytes()
    with pytest.raises(FormatTooNew, match=r"format 2 .* up to 1"):
        open_log(tmp_path)
    assert first.read_bytes() == before


def later_format(header: Header) -> bytes:
    head = bytearray(header.encode()[:-4])
    head[8] = 2
    return bytes(head) + zlib.crc32(head).to_bytes(4, "little")


# ---- the disk fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["fs.open", "fs.write", "fs.sync"])
@pytest.mark.parametrize("error", ["eio", "enospc"])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_failed_append_does_not_count_and_the_next_one_does(
    quick_path: Path, operation: str, error: str, lasting: bool
) -> None:
    """Each time that a file is opened, written to or synced: fail there, once or from then on until it recovers."""
    for time in range(1, 14):
        data = quick_path / str(time)
        log, _ = open_log(data)
        acknowledged = []
        errors: list[StorageError] = []
        with armed(operation, error, time, None if lasting else time):
            for commit in range(1, 9):
                try:
                    append(log, commit)
                    acknowledged.append(commit)
                except StorageError as raised:
                    errors.append(raised)
        expected = SyncFailed if operation == "fs.sync" else ReadOnly if error == "enospc" else StorageError
        assert all(isinstance(raised, expected) for raised in errors)
        assert len(errors) <= 1 or lasting
        for commit in (9, 10):
            append(log, commit)
            acknowledged.append(commit)
        log, found = open_log(data)
        assert found == plain(*acknowledged), (time, errors)
        assert not log.damage


def test_an_append_that_could_not_be_cut_off_is_void(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path)
    append(log, 1)
    with armed("fs.sync", "eio"), armed("log.seal.before_truncate", "eio"), pytest.raises(SyncFailed):
        append(log, 2)
    assert files(tmp_path)[0].stat().st_size == HEADER_BYTES + sum(
        frame_bytes(len(r.payload)) for c in (1, 2) for r in records_of(c)
    )
    append(log, 3)
    assert open_log(tmp_path)[1] == plain(1, 3)


def test_a_segment_that_could_not_be_made_nor_removed_is_no_loss(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path)
    append(log, 1)
    log.close()
    with armed("log.create.before_sync", "eio"), armed("fs.remove", "eio"), pytest.raises(SyncFailed):
        append(log, 2)
    append(log, 3)
    assert len(files(tmp_path)) == 3
    log, found = open_log(tmp_path)
    assert found == plain(1, 3)
    assert not log.damage
    assert len(files(tmp_path)) == 2


def test_a_trim_that_fails_can_be_repeated(tmp_path: Path) -> None:
    fill(tmp_path, 12)
    log, _ = open_log(tmp_path)
    with armed("fs.remove", "eio", 2, 2), pytest.raises(StorageError):
        log.trim(12)
    log.trim(12)
    assert files(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_refuses_and_recovers_by_itself(small_disk: Path) -> None:
    log, _ = open_log(small_disk, segment_bytes=100_000)
    acknowledged = []
    refused = 0
    ballast = small_disk / "ballast"
    for commit in range(1, 40):
        if refused == 3:
            ballast_gone = small_disk / "log"
            log.trim(acknowledged[len(acknowledged) // 2])
            assert ballast_gone.exists()
        try:
            log.reserve(20_000)
            log.append([Record(commit, 2, bytes([commit]) * 20_000)])
            acknowledged.append(commit)
        except ReadOnly:
            refused += 1
    assert refused >= 3
    assert acknowledged[-1] > acknowledged[0] + refused
    log.close()
    ballast.write_bytes(b"")
    reopened, found = open_log(small_disk, flushed_through=acknowledged[-1])
    commits = [commit for commit, _, _ in found]
    assert commits == acknowledged[-len(commits) :]
    assert not reopened.damage


# ---- the machine stops --------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from streamgauge.errors import StorageError
from streamgauge.store import failpoints
from streamgauge.store.log import AHEAD_BYTES, SEGMENT_BYTES, SegmentLog
from streamgauge.store.ports import Record

failpoints.arm_from_environment()
log = SegmentLog(Path(sys.argv[1]), sys.argv[2], segment_bytes=int(sys.argv[3]))
for record in log.replay():
    pass
for commit in range(log.last_commit + 1, 30):
    try:
        if commit == 25:
            print("trim", 16, flush=True)
            log.trim(16)
        print("try", commit, flush=True)
        log.reserve(60)
        if commit in (8, 12, 20):
            with failpoints.armed("fs.sync", "eio"):
                log.append([Record(commit, 2, bytes([commit]) * 40)])
        log.append([Record(commit, 2, bytes([commit]) * 40)])
        print("acknowledged", commit, flush=True)
    except StorageError as error:
        print("failed", commit, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is what is tested")
@pytest.mark.parametrize("point", [name for name in failpoints.FAILPOINTS if name.startswith("log.")])
@pytest.mark.parametrize("time", [1, 3])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, point: str, time: int) -> None:
    log, _ = open_log(tmp_path)
    log.reserve(60)
    log.append([Record(1, 2, bytes([1]) * 40)])
    log.close()
    with files(tmp_path)[-1].open("ab") as file:
        file.write(b"a torn record")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path, STORE, str(SMALL)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(streamgauge.__file__).parents[1]),
            "STREAMGAUGE_FAILPOINTS": f"{point}=kill@{time}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if time > 1 and point == "log.repair.before_truncate":
        assert child.returncode == 0, "there is one torn end to repair"
    else:
        assert child.returncode == -9, child.stderr
    said = [line.split() for line in child.stdout.splitlines()]
    acknowledged = {1, *(int(commit) for word, commit in said if word == "acknowledged")}
    tried = {1, *(int(commit) for word, commit in said if word == "try")}
    trimmed = max((int(commit) for word, commit in said if word == "trim"), default=0)
    failed = {int(commit) for word, commit in said if word == "failed"}

    log, found = open_log(tmp_path, flushed_through=trimmed)
    commits = [commit for commit, _, _ in found]
    assert all(payload == bytes([commit]) * 40 for commit, _, payload in found)
    assert commits == sorted(set(commits)), "nothing is doubled"
    assert {commit for commit in acknowledged if commit > trimmed} <= set(commits) <= tried - failed
    assert len(log.damage) == (point == "log.repair.before_truncate" and time == 1)
    following = log.last_commit + 1
    log.reserve(60)
    log.append([Record(following, 2, b"more")])
    assert open_log(tmp_path, flushed_through=trimmed)[1] == [*found, (following, 2, b"more")]


def test_a_torn_end_is_cut_off_wherever_it_is_torn(quick_path: Path) -> None:
    source = quick_path / "source"
    *_, last = fill(source, 10)
    whole = last.read_bytes()
    size = len(records_of(10)[-1].payload)
    start = len(whole) - frame_bytes(size)
    for cut, tail in itertools.product(range(start, start + FRAME_BYTES + size), (b"", bytes(64))):
        data = quick_path / f"{cut}-{len(tail)}"
        shutil.copytree(source, data)
        files(data)[-1].write_bytes(whole[:cut] + tail)
        log, found = open_log(data)
        assert found == plain(*range(1, 11))[:-1]
        torn = bool(whole[start:cut].strip(b"\0"))
        assert (len(log.damage), len(kept(data))) == (torn, torn), "zeros at the end are room for what comes"
        assert files(data)[-1].stat().st_size == start
        append(log, 11)
        again, found = open_log(data)
        assert found == [*plain(*range(1, 11))[:-1], *plain(11)]
        assert not again.damage, "it is said once"
        shutil.rmtree(data)


def test_a_torn_end_that_cannot_be_cut_is_ignored(tmp_path: Path) -> None:
    *_, last = fill(tmp_path, 10)
    with last.open("ab") as file:
        file.write(b"torn")
    with armed("fs.write", "enospc"):
        log, found = open_log(tmp_path)
    assert found == plain(*range(1, 11))
    assert "left in place" in log.damage[0].what
    append(log, 11)
    log, found = open_log(tmp_path)
    assert found == plain(*range(1, 12))
    assert not log.damage


@pytest.mark.parametrize("sector", [512, 4096])
def test_of_a_torn_append_nothing_counts_behind_a_sector_that_was_never_written(quick_path: Path, sector: int) -> None:
    """A power cut leaves any of the sectors. Samples without their labels are of no use, and events without those
    before them must not be there: their stream would go on behind them."""
    source = quick_path / "source"
    log, _ = open_log(source, segment_bytes=SEGMENT_BYTES)
    log.reserve(1)
    log.append([Record(1, 2, b"acknowledged" * 50)])
    start = files(source)[0].read_bytes().rstrip(b"\0").rfind(b"acknowledged") + len(b"acknowledged")
    torn = [Record(2, 1, b"labels" * 300), Record(2, 2, b"samples" * 500), *(Record(n, 4, b"event") for n in (3, 4, 5))]
    log.append(torn)
    whole = files(source)[0].read_bytes()
    end = start + sum(frame_bytes(len(record.payload)) for record in torn)
    ends = list(itertools.accumulate((frame_bytes(len(record.payload)) for record in torn), initial=start))
    for lost in range(start - start % sector, end, sector):
        begin = max(lost, start)
        data = quick_path / str(lost)
        shutil.copytree(source, data)
        files(data)[0].write_bytes(whole[:begin] + bytes(lost + sector - begin) + whole[lost + sector :])
        before = sum(stop <= begin for stop in ends[1:])
        expected = [(1, 2, b"acknowledged" * 50), *((r.commit, r.kind, bytes(r.payload)) for r in torn[:before])]
        assert open_log(data, writable=False)[1] == expected
        log, found = open_log(data)
        assert found == expected
        (damage,) = log.damage
        assert "before they were acknowledged" in damage.what
        append(log, 6)
        again, found = open_log(data)
        assert found == [*expected, *plain(6)]
        assert not again.damage, "it is said once"


def test_a_lost_sector_of_an_append_that_another_followed_costs_the_records_in_it(tmp_path: Path) -> None:
    """It was there once: the next append came after its sync."""
    log, _ = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    log.reserve(1)
    log.append([Record(1, 2, bytes([n]) * 1000) for n in range(1, 6)])
    log.append([Record(2, 2, b"the next"), Record(2, 2, b"and last")])
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:512] + bytes(512) + whole[1024:])
    log, found = open_log(tmp_path)
    assert [payload[:1] for _, _, payload in found] == [b"\2", b"\3", b"\4", b"\5", b"t", b"a"]
    assert len(log.damage) == 1


def test_a_header_torn_anywhere_is_as_if_never_made(quick_path: Path) -> None:
    *_, last = fill(quick_path, 10)
    sequence = int(last.stem) + 1
    mark = decode_header(memoryview(last.read_bytes())).mark
    header = Header(bytes.fromhex(STORE), sequence, 77, sequence - 1, mark, last.stat().st_size, 10).encode()
    for cut in range(HEADER_BYTES + 1):
        names.segment_file(quick_path, sequence).write_bytes(header[:cut])
        log, found = open_log(quick_path)
        assert found == plain(*range(1, 11))
        assert not log.damage
        assert len(files(quick_path)) == sequence - (cut < HEADER_BYTES)


# ---- the bytes change ---------------------------------------------------------------------------------------------


def test_a_flipped_byte_costs_its_own_record_at_most(quick_path: Path) -> None:
    """Every byte of every segment, one at a time."""
    paths = fill(quick_path, 9)
    assert len(paths) >= 3
    everything = plain(*range(1, 10))
    spans = list(frames_of(paths))
    for path in paths:
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            log, found = open_log(quick_path, writable=False)
            hit = [n for n, (owner, start, end, used) in enumerate(spans) if owner == path and start <= at < used]
            padding = any(owner == path and used <= at < end for owner, _, end, used in spans)
            assert found == [record for n, record in enumerate(everything) if n not in hit], (path.name, at)
            assert bool(log.damage) != padding, (path.name, at)
        path.write_bytes(whole)


def frames_of(paths: list[Path]) -> Iterator[tuple[Path, int, int, int]]:
    """File, first byte, byte after the frame and byte after the payload of each record."""
    sizes = iter(len(payload) for _, _, payload in plain(*range(1, 100)))
    for path in paths:
        at = HEADER_BYTES
        while at < path.stat().st_size:
            size = next(sizes)
            yield path, at, at + frame_bytes(size), at + FRAME_BYTES + size
            at += frame_bytes(size)


def test_a_wiped_stretch_costs_the_records_in_it(tmp_path: Path) -> None:
    """A sector of zeros over the header and the first records: the others are found without either."""
    first, *_ = fill(tmp_path, 9)
    spans = list(frames_of([first]))
    whole = first.read_bytes()
    wiped = spans[1][2]
    first.write_bytes(bytes(wiped) + whole[wiped:])
    log, found = open_log(tmp_path)
    assert found == plain(*range(1, 10))[2:]
    (damage,) = log.damage
    assert "its header" in damage.what


def test_a_damaged_segment_is_kept_when_it_is_trimmed(tmp_path: Path) -> None:
    first, *_ = fill(tmp_path, 9)
    whole = bytearray(first.read_bytes())
    whole[100] ^= 1
    first.write_bytes(whole)
    for _ in range(2):
        log, _ = open_log(tmp_path)
        assert len(log.damage) == 1, "for as long as it is in the log"
    log.trim(9)
    assert files(tmp_path) == []
    assert kept(tmp_path) == [first.name]
    assert (names.set_aside_dir(tmp_path) / first.name).read_bytes() == whole
    assert not open_log(tmp_path, flushed_through=9)[0].damage


def test_bytes_that_a_segment_lacks_are_missed(tmp_path: Path) -> None:
    first, *_ = fill(tmp_path, 9)
    whole = first.read_bytes()
    ends = [end for _, _, end, _ in frames_of([first])]
    for size in (0, 40, HEADER_BYTES, ends[-2], len(whole) - 1):
        first.write_bytes(whole[:size])
        log, found = open_log(tmp_path)
        lost = [n for n, end in enumerate(ends) if end > size]
        assert found == [record for n, record in enumerate(plain(*range(1, 10))) if n not in lost]
        (damage,) = log.damage
        assert "its end lacks" in damage.what
        assert first.stat().st_size == size, "only the last segment is ever cut"


def test_a_missing_segment_is_missed_unless_blocks_hold_it(quick_path: Path) -> None:
    paths = fill(quick_path, 12)
    held = {path: {commit for commit, _, _ in records_in(quick_path, path)} for path in paths}
    for path in paths[:-1]:  # nothing tells of the last one
        content = path.read_bytes()
        path.unlink()
        log, found = open_log(quick_path)
        assert {commit for commit, _, _ in found} == set(range(1, 13)) - (
            held[path] - set().union(*(held[p] for p in paths if p != path))
        )
        (damage,) = log.damage
        assert damage.path == str(path)
        assert "missing" in damage.what
        unneeded = open_log(quick_path, flushed_through=max(held[path]))[0]
        assert not unneeded.damage
        path.write_bytes(content)


def test_segments_that_come_back_after_the_log_went_on_are_set_aside(tmp_path: Path) -> None:
    """Somebody moves the newest two away, starts a server, and puts one of them back."""
    *older, second, last = fill(tmp_path, 12)
    content = last.read_bytes()
    for path in (second, last):
        path.unlink()
    log, before = open_log(tmp_path)
    append(log, 13)
    assert files(tmp_path) == [*older, second]
    last.write_bytes(content)
    log, found = open_log(tmp_path)
    assert found == [*before, *plain(13)]
    assert kept(tmp_path) == [last.name]


def test_a_segment_that_was_given_up_and_holds_records_is_not_removed(tmp_path: Path) -> None:
    *_, last = fill(tmp_path, 6)
    log, _ = open_log(tmp_path)
    with armed("fs.open", "eio"), pytest.raises(StorageError):
        append(log, 7)
    append(log, 8)
    log.close()
    given_up = names.segment_file(tmp_path, int(last.stem) + 1)
    mark = decode_header(memoryview(last.read_bytes())).mark
    header = Header(bytes.fromhex(STORE), int(given_up.stem), 5, int(last.stem), mark, last.stat().st_size, 6).encode()
    given_up.write_bytes(header + b"".join(encode_frame(Record(7, 2, b"precious"), 5)))
    log, found = open_log(tmp_path)
    assert found == plain(1, 2, 3, 4, 5, 6, 8)
    assert kept(tmp_path) == [given_up.name]


def test_a_segment_cut_below_its_header_is_missed_unless_it_is_the_last(tmp_path: Path) -> None:
    first, second, *_ = fill(tmp_path, 12)
    first.write_bytes(first.read_bytes()[:50])
    whole = bytearray(second.read_bytes())
    whole[0] ^= 1
    second.write_bytes(whole)
    log, _ = open_log(tmp_path)
    assert [Path(damage.path) for damage in log.damage] == [first, second]


def records_in(data: Path, path: Path) -> Records:
    alone = data.with_name(f"{data.name}-alone")
    names.log_dir(alone).mkdir(parents=True)
    shutil.copy(path, names.log_dir(alone))
    found = open_log(alone)[1]
    shutil.rmtree(alone)
    return found


def test_a_payload_cannot_pass_for_records(tmp_path: Path) -> None:
    """A stored copy of another log stays a payload, even when the frame around it is damaged."""
    fill(tmp_path / "copied", 4)
    copied = files(tmp_path / "copied")[0].read_bytes()
    log, _ = open_log(tmp_path, segment_bytes=10_000)
    log.reserve(len(copied))
    log.append([Record(1, 2, copied), Record(1, 2, b"after it")])
    path = files(tmp_path)[0]
    whole = bytearray(path.read_bytes())
    whole[HEADER_BYTES] ^= 1
    path.write_bytes(whole)
    assert open_log(tmp_path)[1] == [(1, 2, b"after it")]


def test_an_unreadable_sector_costs_the_records_in_it(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path, segment_bytes=1 << 20)
    log.reserve(1)
    log.append([Record(1, 2, bytes([n]) * 1000) for n in range(20)])
    reads = itertools.count(1)

    def bad_sector() -> None:
        if next(reads) in (2, 4):  # after the header: the file in one piece, then its second sector
            raise OSError(5, "bad sector")

    with armed("fs.read", bad_sector):
        log, found = open_log(tmp_path)
    assert [payload[0] for _, _, payload in found] == [n for n in range(20) if n not in (3, 4, 5, 6, 7)]
    assert len(log.damage) == 1


# ---- everything together ------------------------------------------------------------------------------------------


class LogModel(RuleBasedStateMachine):
    """Appends, failures, restarts and trims in any order, compared with a list."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.data = Path(self.folder.name)
        self.commit = 0
        self.trimmed = 0
        self.acknowledged: dict[int, Records] = {}
        self.reopen(0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.log.close()
            self.folder.cleanup()

    @rule(sizes=st.lists(st.integers(0, 200), min_size=1, max_size=4))
    def append(self, sizes: list[int]) -> None:
        self.commit += 1
        records = [Record(self.commit, 2, bytes([self.commit % 256]) * size) for size in sizes]
        self.log.reserve(sum(map(frame_bytes, sizes)))
        self.log.append(records)
        self.acknowledged[self.commit] = [(r.commit, r.kind, bytes(r.payload)) for r in records]

    @rule(
        operation=st.sampled_from(["fs.open", "fs.write", "fs.sync", "log.append.after_sync"]),
        cut_too=st.booleans(),
        time=st.integers(1, 2),
    )
    def fail_to_append(self, operation: str, cut_too: bool, time: int) -> None:
        self.commit += 1
        last = None if cut_too else time
        try:
            with armed(operation, "eio", time, last):
                self.log.reserve(50)
                self.log.append([Record(self.commit, 2, bytes(50))])
        except StorageError:
            self.append([10])  # voids the failed one for good: until then a restart might find it
        else:
            self.acknowledged[self.commit] = [(self.commit, 2, bytes(50))]

    @rule(torn=st.integers(0, 30))
    def reopen(self, torn: int) -> None:
        if hasattr(self, "log"):
            self.log.close()
        written = files(self.data) if names.log_dir(self.data).exists() else []
        if torn and written:
            with written[-1].open("ab") as file:
                file.write(bytes(range(1, torn + 1)))
        self.log, found = open_log(self.data, flushed_through=self.trimmed)
        assert len(self.log.damage) == bool(torn and written)
        expected = [record for commit in sorted(self.acknowledged) for record in self.acknowledged[commit]]
        needed = [record for record in expected if record[0] > self.trimmed]
        assert found == expected[len(expected) - len(found) :]
        assert found[len(found) - len(needed) :] == needed

    @rule(back=st.integers(0, 5))
    def trim(self, back: int) -> None:
        self.trimmed = max(self.trimmed, self.commit - back)
        self.log.trim(self.trimmed)


LogModel.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)
TestLogModel = LogModel.TestCase
