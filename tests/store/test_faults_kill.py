"""kill -9 at every failpoint, then a new start: nothing acknowledged is missing, doubled, or left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

import streamgauge
from streamgauge.clock import ManualClock
from streamgauge.model.source import AggregateKind, NoMeter
from streamgauge.store import failpoints
from streamgauge.store.failpoints import FAILPOINTS
from streamgauge.store.helper import InThread
from streamgauge.store.offline import open_folder
from streamgauge.store.ports import DAY_MS, FIRST_TIME
from streamgauge.store.resolutions import thinned
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import (
    KEYS,
    NOON,
    RETENTION,
    Diary,
    Life,
    batch_of,
    content,
    content_of,
    opened,
    shared_memory_of,
)
from streamgauge.testing.thorough import some_of, thorough

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor kill -9")

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
ELSEWHERE = {
    "catalog.upgrade.after_copy": "there is one format so far; test_catalog upgrades from one of its own",
    **{name: "tests/backup" for name in FAILPOINTS if name.startswith(("backup.", "restore."))},
}
IN_HELPER = [
    *(name for name in FAILPOINTS if name.startswith(("block.", "flush.", "compact.", "thin."))),
    "clean.before_write",
    "clean.after_write",
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


class Crasher:
    """A process that forks one that lives and dies."""

    def __init__(self) -> None:
        source = str(Path(streamgauge.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "streamgauge.testing.crash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": source},
        )

    def live(self, folder: Path, spec: str, helper: bool = False) -> int:
        """The exit status of a life in `folder`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"data": str(folder / "data"), "diary": str(folder / "diary"), "failpoints": spec, "helper": helper}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> str:
        return self._process.communicate()[1]


@pytest.fixture(scope="module")
def crasher() -> Iterator[Crasher]:
    crasher = Crasher()
    yield crasher
    crasher.close()


def only_the_torn_end(lines: list[str]) -> bool:
    """A life tears its log between two starts, which is to be reported."""
    return all((".log.end" in line and "was set aside" in line) or "are not a whole record" in line for line in lines)


def samples_in_aggregates(store: Store) -> float:
    snapshot, release = store.snapshot()
    selection = snapshot.open({}).select([], FIRST_TIME, store.closed_through - 1, NoMeter(), AggregateKind.COUNT)
    release()
    return float(selection.samples.values.sum())


async def reopen(folder: Path) -> None:
    data, diary = folder / "data", Diary(folder / "diary")
    async with opened(data, ManualClock(NOON + 17 * DAY_MS // 10), RETENTION) as (store, maintenance):
        assert only_the_torn_end([damage.what for damage in store.state.damage])
        assert diary.allows(content(store)) == []
        if thinned(store.state.blocks):
            assert samples_in_aggregates(store) == 1, "which the life has left on the day before its first"
        row = (KEYS[0], NOON + DAY_MS, 11)
        diary.tries([row])
        await store.append(batch_of(store, [row]))
        diary.acknowledged()
        await maintenance.compact_fully()
        assert diary.allows(content(store)) == []


def holds_what_it_promised(folder: Path) -> None:
    """Start again, after a look without starting, and look again."""
    data, diary = folder / "data", Diary(folder / "diary")
    if (data / "catalog.sqlite").exists():
        with open_folder(data) as (snapshot, damage):
            assert only_the_torn_end([entry.what for entry in damage])
            assert diary.allows(content_of(snapshot)) == []
    asyncio.run(reopen(folder))
    assert only_the_torn_end(check_folder(data))
    assert not shared_memory_of(data)
    known = {"blocks", "catalog.sqlite", "events", "lock", "log", "set-aside", "snapshots", "tmp"}
    assert {path.name for path in data.iterdir()} <= known
    for snapshot in (data / "snapshots").glob("*"):
        assert check_folder(snapshot) == []
        with open_folder(snapshot) as (seen, damage):
            assert damage == []
            assert not [line for line in diary.allows(content_of(seen)) if "never written" in line]
    assert not list((data / "tmp").iterdir())


def test_a_life_reaches_every_failpoint(folder: Path) -> None:
    reached: Counter[str] = Counter()
    with ExitStack() as stack:
        for name in FAILPOINTS:
            if name != "log.append.before_sync":  # at which the life itself makes an append fail
                stack.enter_context(failpoints.armed(name, partial(reached.update, [name])))
        Life(folder / "data", Diary(folder / "diary"), InThread()).run()
    missed = FAILPOINTS.keys() - reached.keys() - ELSEWHERE.keys()
    assert missed == {"log.append.before_sync"}
    with failpoints.armed("log.append.before_sync", partial(reached.update, ["log.append.before_sync"])):
        Life(folder / "data2", Diary(folder / "diary2"), InThread(), stops_at="log.append.before_sync").run()
    assert reached["log.append.before_sync"]
    holds_what_it_promised(folder)


@pytest.fixture(scope="module")
def times_reached() -> Counter[str]:
    """How often a life comes to each point; it fails an append at one of them itself."""
    reached: Counter[str] = Counter({"log.append.before_sync": 3})
    with ExitStack() as stack, tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        for name in FAILPOINTS.keys() - reached.keys():
            stack.enter_context(failpoints.armed(name, partial(reached.update, [name])))
        Life(Path(path) / "data", Diary(Path(path) / "diary"), InThread()).run()
    return reached


POINTS = [name for name in FAILPOINTS if name not in ELSEWHERE and not name.startswith("fs.")]


@pytest.mark.parametrize(("number", "point"), list(enumerate(POINTS)))
def test_kill_9_at_any_point(
    folder: Path, crasher: Crasher, times_reached: Counter[str], number: int, point: str
) -> None:
    """The first time or, by turns where a life comes there more than twice, a later one; in thorough tests both."""
    for time in some_of([1, 3], 2, number % 2) if times_reached[point] >= 3 else [1]:
        one = folder / str(time)
        one.mkdir()
        assert crasher.live(one, f"{point}=kill@{time}") == -signal.SIGKILL
        holds_what_it_promised(one)


@pytest.mark.parametrize("point", [name for name in FAILPOINTS if name.startswith("retention.")])
def test_kill_9_while_blocks_go_because_of_their_size(folder: Path, crasher: Crasher, point: str) -> None:
    """A life drops blocks by age first."""
    assert crasher.live(folder, f"{point}=kill@2") == -signal.SIGKILL
    holds_what_it_promised(folder)


@pytest.mark.parametrize("point", [name for name in FAILPOINTS if name.startswith("fs.")])
def test_kill_9_before_any_call_of_the_disk(
    folder: Path, crasher: Crasher, times_reached: Counter[str], point: str
) -> None:
    """Two of them, or in thorough tests twenty, spread over the life."""
    total, parts = times_reached[point], 20 if thorough() else 2
    for time in sorted({1 + (2 * at + 1) * (total - 1) // (2 * parts) for at in range(parts)}):
        one = folder / str(time)
        one.mkdir()
        assert crasher.live(one, f"{point}=kill@{time}") == -signal.SIGKILL
        holds_what_it_promised(one)


@pytest.mark.parametrize("point", some_of(IN_HELPER, 3))
def test_kill_9_in_a_helper_takes_the_server_with_it(folder: Path, crasher: Crasher, point: str) -> None:
    assert crasher.live(folder, f"{point}=kill@2", helper=True) == -signal.SIGKILL
    holds_what_it_promised(folder)


def test_kill_9_again_and_again(folder: Path, crasher: Crasher) -> None:
    """The diary goes on: what was acknowledged before a kill holds after the next."""
    for time in some_of(range(20, 400, 45), 2):
        crasher.live(folder, f"fs.write=kill@{time}")
        asyncio.run(reopen(folder))
    holds_what_it_promised(folder)
