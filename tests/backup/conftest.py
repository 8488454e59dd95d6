"""Data folders to back up, and looks into what came of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamgauge.backup.folder import FolderPlace
from streamgauge.backup.place import Place
from streamgauge.backup.write import BackupWriter, Made, Options
from streamgauge.clock import ManualClock
from streamgauge.model.batch import Metadata
from streamgauge.store.offline import open_folder, pinned_folder
from streamgauge.store.ports import DAY_MS
from streamgauge.store.resolutions import Tier
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import KEYS, NOON, Rows, batch_of, content_of, opened

UP = Metadata("up", "gauge", "Whether it is up.")


@dataclass
class Tally:
    """Implements backup.write.Progress."""

    expected: int = 0
    told: dict[str, int] = field(default_factory=lambda: {"copied": 0, "verified": 0})

    def expect(self, size: int) -> None:
        self.expected += size

    def copied(self, size: int) -> None:
        self.told["copied"] += size

    def verified(self, size: int) -> None:
        self.told["verified"] += size


def grow(data: Path, *days: int) -> None:
    """Add a block for each day, and something that stays in the log."""

    async def life() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            for day in days:
                rows = [(key, NOON - day * DAY_MS + at, day * 1000 + at) for key in KEYS for at in range(200)]
                await store.append(batch_of(store, rows), [UP])
                await maintenance.flush_all()
            await store.append(batch_of(store, [(key, NOON + 1 + max(days), 5) for key in KEYS]))

    asyncio.run(life())


def thin(data: Path) -> None:
    """Let all but the last day become aggregates."""

    async def life() -> None:
        clock = ManualClock(NOON)
        async with opened(data, clock, DAY_MS, tiers=(Tier(300_000, 90 * DAY_MS),)) as (_, maintenance):
            await clock.advance(DAY_MS / 1000)
            while await maintenance.expire():
                await maintenance.close()

    asyncio.run(life())


def content(data: Path) -> Rows:
    """Of a good folder."""
    assert check_folder(data) == []
    with open_folder(data) as (snapshot, damage):
        assert damage == []
        return content_of(snapshot)


def back_up(
    data: Path,
    place: Place,
    options: Options | None = None,
    progress: Tally | None = None,
    pinned: Callable[[], object] = lambda: None,
) -> Made:
    """`pinned` is called when the blocks are known and none is copied."""
    with pinned_folder(data) as state:
        pinned()
        return BackupWriter(data, state, place, options or Options(), progress or Tally()).run(NOON)


def files_of(folder: Path) -> dict[str, bytes]:
    """All but the lock, by path."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def flip(path: Path, at: int = -100) -> None:
    """Change one byte, and break a hard link on the way."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks and a log. Nobody changes it."""
    data = tmp_path_factory.mktemp("grown") / "data"
    grow(data, 0, 1, 2)
    return data


@pytest.fixture
def data(tmp_path: Path, grown: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(grown, tmp_path / "data")


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "backups")
