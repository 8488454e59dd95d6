"""`streamgauge backup` and `restore` as one types them: what they say, their exit codes, and kill -9 half way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge.backup.folder import FolderPlace
from streamgauge.backup.open import open_place
from streamgauge.backup.place import backups, manifest
from streamgauge.backup.restore import restore
from streamgauge.backup.verify import problems
from streamgauge.backup.write import Options
from streamgauge.clock import ManualClock
from streamgauge.commands.progress import Bar
from streamgauge.errors import BadInput
from streamgauge.store import failpoints, names
from streamgauge.testing.server import run_command

from .conftest import Tally, back_up, content, flip, grow

COPY = Options(copy=True)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")


def run(*words: str | Path, code: int = 0, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    """One command, whose exit code must be `code`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, failpoint)
        done = run_command(*map(str, words))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def says(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line on stderr that names these things."""
    (line,) = done.stderr.splitlines()
    for part in parts:
        assert part in line


def test_a_backup_and_back(data: Path, tmp_path: Path) -> None:
    dest, back = tmp_path / "dest", tmp_path / "back"
    made = run("backup", dest, "--data", data)
    assert "4 blocks, " in made.stdout
    assert "4 new blocks: 0 B copied" in made.stdout
    assert "are hard links: second names for the same bytes" in made.stdout
    again = run("backup", dest, "--data", data, "--copy")
    assert "0 new blocks: 0 B copied" in again.stdout
    listed = run("restore", dest, "--list").stdout.splitlines()
    names_ = backups(FolderPlace(dest))
    assert [line.split()[0] for line in listed[1:]] == names_
    assert all(line.split()[1:3] == ["4", "2,404"] for line in listed[1:])
    assert "4 blocks" in run("restore", dest, back, "--backup", names_[0]).stdout
    assert run("check", back).stdout == f"{back}: good\n"
    assert content(back) == content(data)
    pruned = run("backup", dest, "--data", data, "--keep", "1")
    assert "2 backups and 0 blocks" in pruned.stdout
    assert run("backup", dest, "--verify-only").stdout == f"{dest}: 1 backup: good\n"


def test_damage_is_told_by_a_check_and_refused_by_a_restore(data: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    run("backup", dest, "--data", data, "--copy")
    victim = min(dest.glob("blocks/*/samples.parquet"))
    flip(victim)
    path = victim.relative_to(dest).as_posix()
    checked = run("backup", dest, "--verify-only", code=1)
    assert checked.stdout.startswith(f"{path} in {dest} is damaged: its checksum is ")
    assert checked.stderr == f"{dest}: 1 backup: 1 problem\n"
    says(run("restore", dest, tmp_path / "back", code=3), path, "nothing was restored")
    assert not (tmp_path / "back").exists()


def test_a_backup_is_told_of_even_if_old_ones_cannot_be_removed(data: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    run("backup", dest, "--data", data)
    (first,) = dest.glob("backups/*.json")
    first.write_text("damaged")
    done = run("backup", dest, "--data", data, "--keep", "2", code=3)
    says(done, first.name, "is damaged")
    assert "4 blocks" in done.stdout
    assert len(list(dest.glob("backups/*.json"))) == 2


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("backup {data} --data {data}", 3, "holds other things"),
        ("backup s3://key:hunter2@bucket --data {data}", 2, "holds no credentials"),
        ("backup {dest} --data {data} --endpoint http://127.0.0.1:1", 2, "--endpoint is for s3:// URLs"),
        ("backup {dest} --backup x", 2, "--verify-only"),
        ("restore {dest}", 2, "--list"),
        ("restore {dest} {data}", 3, "holds something already"),
        ("restore {dest} {data}2 --backup yesterday", 3, "restore --list shows"),
        ("serve --data {dest}", 3, "holds backups"),
    ],
)
def test_errors_are_one_line(data: Path, tmp_path: Path, line: str, code: int, said: str) -> None:
    dest = tmp_path / "dest"
    back_up(data, FolderPlace(dest))
    done = run(*line.format(data=data, dest=dest).split(), code=code)
    says(done, said)
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("text", ["ftp://x/y", "S3://bucket"])
def test_what_is_neither_a_folder_nor_a_bucket(text: str) -> None:
    with pytest.raises(BadInput, match="neither a folder nor a bucket"):
        open_place(text, None, {})


def test_what_was_set_aside_is_told_of(data: Path, tmp_path: Path) -> None:
    flip(min(data.glob("blocks/*/checksums.json")))
    done = run("backup", tmp_path / "dest", "--data", data)
    assert "warning: 1 damaged thing in" in done.stderr.splitlines()[-1]
    assert "3 blocks" in done.stdout


# ---- kill -9 --------------------------------------------------------------------------------------------------------

BACKUP_POINTS = [
    "backup.after_file=kill@1",
    "backup.after_file=kill@5",
    "backup.before_manifest=kill",
    "backup.after_manifest=kill",
    *(f"{call}=kill@{time}" for call in ("fs.write", "fs.sync", "fs.rename") for time in (5, 9)),
]


def killed(point: str, *words: str | Path) -> None:
    done = run_command(*map(str, words), environment={failpoints.VARIABLE: point})
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", BACKUP_POINTS)
def test_a_backup_that_is_killed_is_none_and_the_next_goes_on(data: Path, tmp_path: Path, point: str) -> None:
    dest = tmp_path / "dest"
    place = FolderPlace(dest)
    first = back_up(data, place, COPY).name
    before = content(data)
    grow(data, 3, 4)
    killed(point, "backup", dest, "--data", data, "--copy")
    assert len(backups(place)) == (2 if point.startswith("backup.after_manifest") else 1)
    assert list(problems(place, backups(place), Tally())) == []
    again = back_up(data, place, COPY)
    assert not list(dest.rglob("*.tmp"))
    for name, expected in ((again.name, content(data)), (first, before)):
        restore(place, manifest(place, name), tmp_path / name, Tally())
        assert content(tmp_path / name) == expected


@pytest.mark.parametrize("point", ["restore.after_block=kill@2", "restore.before_rename=kill", "fs.rename=kill@2"])
def test_a_restore_that_is_killed_leaves_nothing_of_the_name(data: Path, tmp_path: Path, point: str) -> None:
    place, back = FolderPlace(tmp_path / "dest"), tmp_path / "back"
    name = back_up(data, place).name
    killed(point, "restore", tmp_path / "dest", back)
    assert not back.exists()
    assert names.restore_draft(back).exists()
    restore(place, manifest(place, name), back, Tally())
    assert not names.restore_draft(back).exists()
    assert content(back) == content(data)


# ---- a full disk ----------------------------------------------------------------------------------------------------

DISK = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_the_next_run_goes_on(small_disk: Path, data: Path) -> None:
    ballast, dest = small_disk / "ballast", small_disk / "dest"
    place = FolderPlace(dest)
    ballast.write_bytes(bytes(DISK - (20 << 10)))
    says(run("backup", dest, "--data", data, code=3), "No space left on device")
    assert not list(dest.rglob("*.tmp"))
    assert backups(place) == []
    ballast.unlink()
    made = back_up(data, place)
    assert made.linked == 0, "it is another file system"
    assert 0 < made.copied < made.size
    ballast.write_bytes(bytes(DISK - (60 << 10)))
    says(run("restore", dest, small_disk / "back", code=3), "No space left on device")
    assert sorted(os.listdir(small_disk)) == ["ballast", "dest"]
    ballast.unlink()
    restore(place, manifest(place, made.name), small_disk / "back", Tally())
    assert content(small_disk / "back") == content(data)


# ---- the bar --------------------------------------------------------------------------------------------------------


def test_the_bar_shows_bytes_and_rate() -> None:
    clock = ManualClock()
    bar = Bar("copying", 2, clock, shown=False)
    bar.expect(4_000_000)
    bar.copied(1_000_000)
    asyncio.run(clock.advance(2.0))
    bar.verified(1_000_000)
    assert bar.line() == "copying  [" + "#" * 7 + "-" * 23 + "]  25%  1.0 MB of 4.0 MB, 1.0 MB/s"
    bar.copied(10_000_000)
    assert "] 100%  4.0 MB of 4.0 MB" in bar.line()
    assert bar.bytes_copied == 11_000_000
