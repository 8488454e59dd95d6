"""Damaged and missing files: everything outside the damage is served, the rest is set aside and reported, and nothing
is doubled."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import Corrupt, StorageError
from streamgauge.model.batch import Metadata
from streamgauge.store import names
from streamgauge.store.maintenance import Maintenance
from streamgauge.store.offline import open_folder
from streamgauge.store.ports import DAY_MS
from streamgauge.store.segment import HEADER_BYTES
from streamgauge.store.store import Store
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import KEYS, NOON, Row, Rows, batch_of, content, content_of, opened

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path) / "data"


Work = Callable[[Store, Maintenance], Awaitable[None]]


def run(data: Path, work: Work) -> None:
    async def life() -> None:
        async with opened(data, ManualClock(NOON)) as (store, maintenance):
            await work(store, maintenance)

    asyncio.run(life())


def rows_of_day(day: int, count: int = 4) -> list[Row]:
    return [(key, NOON + day * DAY_MS + at, 100 * day + at) for key in KEYS for at in range(count)]


def as_content(rows: list[Row]) -> Rows:
    return {(key, time): bits for key, time, bits in rows}


def all_of(parts: Iterable[list[Row]]) -> list[Row]:
    return [row for rows in parts for row in rows]


async def append(store: Store, rows: list[Row]) -> None:
    await store.append(batch_of(store, rows), [Metadata("up", "gauge", "whether it is up")])


def two_blocks_and_a_log(data: Path) -> tuple[list[Row], list[Row], list[Row]]:
    """A folder with a block a day, and the newest rows in the log only: the rows of each."""
    parts = rows_of_day(-2), rows_of_day(-1), rows_of_day(0)

    async def work(store: Store, maintenance: Maintenance) -> None:
        for rows in parts[:2]:
            await append(store, rows)
            store.head.seal()
            assert await maintenance.flush(1 << 20)
        await append(store, parts[2])

    run(data, work)
    assert len(blocks_of(data)) == 2
    assert check_folder(data) == []
    return parts


def blocks_of(data: Path) -> list[Path]:
    """In order of days."""
    return sorted(names.blocks_dir(data).iterdir())


def segments_of(data: Path) -> list[Path]:
    return sorted(names.log_dir(data).iterdir())


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def holds(data: Path, expected: list[Row], damaged: int) -> None:
    """Seen without a start, by a start, and by a second one."""
    if names.catalog_file(data).exists():
        with open_folder(data) as (snapshot, damage):
            assert len(damage) == damaged
            assert content_of(snapshot) == as_content(expected)

    async def look(store: Store, maintenance: Maintenance) -> None:
        assert content(store) == as_content(expected)
        assert len(store.state.damage) == damaged
        row = (KEYS[0], NOON + 10, 7)
        await append(store, [row])
        assert content(store) == as_content([*expected, row])

    async def look_again(store: Store, maintenance: Maintenance) -> None:
        everything = as_content([*expected, (KEYS[0], NOON + 10, 7)])
        assert content(store) == everything
        await maintenance.compact_fully()
        assert content(store) == everything
        assert store.metadata() == [Metadata("up", "gauge", "whether it is up")]

    run(data, look)
    run(data, look_again)
    aside = names.set_aside_dir(data)
    kept = [path for path in aside.iterdir() if path.suffix != ".txt"] if aside.is_dir() else []
    assert check_folder(data) == [f"{path} was set aside as damaged" for path in sorted(kept)]


DAMAGE = [(name, damage) for name in (names.SAMPLES, names.SERIES, names.CHECKSUMS) for damage in ("cut", "remove")]
"""And a flipped byte in any file but that of samples, whose body is read when a query wants it."""


@pytest.mark.parametrize(("name", "damage"), [*DAMAGE, (names.SERIES, "flip"), (names.CHECKSUMS, "flip")])
def test_a_damaged_block_is_set_aside_and_the_rest_is_served(data: Path, name: str, damage: str) -> None:
    _, second, newest = two_blocks_and_a_log(data)
    path = blocks_of(data)[0] / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "remove":
        path.unlink()
    else:
        flip(path, path.stat().st_size - 20)
    holds(data, second + newest, 1)
    assert [path.name for path in names.set_aside_dir(data).glob("*.txt")]


def test_damage_that_a_query_meets_is_taken_out_of_service(data: Path) -> None:
    _, second, newest = two_blocks_and_a_log(data)
    flip(names.samples_file(blocks_of(data)[0]), 40)

    async def work(store: Store, maintenance: Maintenance) -> None:
        assert store.state.damage == []
        with pytest.raises(Corrupt, match="row group") as met:
            content(store)
        running = asyncio.ensure_future(maintenance.run())
        maintenance.damaged.suspect(met.value.message)
        while not store.state.damage:
            await asyncio.wait([running], timeout=0.01)
        running.cancel()
        await asyncio.wait([running])
        assert len(store.state.blocks) == 1
        assert content(store) == as_content(second + newest)
        assert "16 samples are not served" in store.state.damage[0].what

    run(data, work)
    holds(data, second + newest, 0)
    assert len(check_folder(data)) == 1


def test_damage_that_a_compaction_meets_is_taken_out_of_service(data: Path) -> None:
    parts = [rows_of_day(0, 1), [(KEYS[0], NOON + 50 + at, at) for at in range(20)]]

    async def fill(store: Store, maintenance: Maintenance) -> None:
        for rows in parts:
            await append(store, rows)
            store.head.seal()
            await maintenance.flush(1 << 20)

    run(data, fill)
    flip(names.samples_file(next(path for path in blocks_of(data) if "-1-1-" in path.name)), 40)

    async def work(store: Store, maintenance: Maintenance) -> None:
        await maintenance.compact_fully()
        assert len(store.state.damage) == 1
        assert content(store) == as_content(parts[1])

    run(data, work)


def test_a_missing_block_is_reported_and_the_rest_is_served(data: Path) -> None:
    _, second, newest = two_blocks_and_a_log(data)
    shutil.rmtree(blocks_of(data)[0])
    assert any("cannot be read" in line for line in check_folder(data))
    holds(data, second + newest, 1)


def test_a_missing_catalog_is_rebuilt_from_the_blocks(data: Path) -> None:
    everything = all_of(two_blocks_and_a_log(data))
    names.catalog_file(data).unlink()
    with pytest.raises(StorageError, match="rebuilt when a server starts"), open_folder(data):
        pass
    run(data, lambda store, maintenance: nothing_is_lost(store, everything))
    assert check_folder(data) == []
    holds(data, everything, 0)


def test_a_catalog_lost_after_the_log_was_trimmed_misses_no_segment(data: Path) -> None:
    parts = two_blocks_and_a_log(data)

    async def trim(store: Store, maintenance: Maintenance) -> None:
        await append(store, [(KEYS[0], NOON + 50, 1)])
        store.head.seal()
        assert await maintenance.flush(1 << 20)
        await append(store, [(KEYS[0], NOON + 51, 2)])

    run(data, trim)
    assert [path.name.lstrip("0") for path in segments_of(data)] == ["2.log"]
    names.catalog_file(data).unlink()
    holds(data, [*all_of(parts), (KEYS[0], NOON + 50, 1), (KEYS[0], NOON + 51, 2)], 0)


async def nothing_is_lost(store: Store, everything: list[Row]) -> None:
    assert content(store) == as_content(everything)
    assert store.state.damage == []


def test_a_damaged_catalog_is_rebuilt_from_the_blocks(data: Path) -> None:
    everything = all_of(two_blocks_and_a_log(data))
    path = names.catalog_file(data)
    path.write_bytes(b"\0" * 200 + path.read_bytes()[200:])

    async def rebuilt(store: Store, maintenance: Maintenance) -> None:
        assert content(store) == as_content(everything)
        assert len(store.state.damage) == 1

    run(data, rebuilt)
    holds(data, everything, 0)
    assert len(check_folder(data)) == 1, "the damaged catalog is kept"


def test_catalog_and_log_lost_together_leave_the_blocks(data: Path) -> None:
    first, second, _ = two_blocks_and_a_log(data)
    names.catalog_file(data).unlink()
    shutil.rmtree(names.log_dir(data))

    async def again(store: Store, maintenance: Maintenance) -> None:
        """What is written now wins over what blocks hold: commits are not numbered from 1 again."""
        late = [(KEYS[0], NOON - DAY_MS, 77)]
        await append(store, late)
        store.head.seal()
        await maintenance.flush(1 << 20)
        late = [(KEYS[0], NOON - DAY_MS, 78)]
        await append(store, late)
        await maintenance.compact_fully()
        assert content(store) == as_content([*first, *second, *late])

    run(data, again)
    assert check_folder(data) == []


def test_a_catalog_lost_while_a_compaction_was_unfinished_doubles_nothing(data: Path) -> None:
    parts = two_blocks_and_a_log(data)
    everything = all_of(parts)
    before = [(path.name, {file.name: file.read_bytes() for file in path.iterdir()}) for path in blocks_of(data)]

    async def compact(store: Store, maintenance: Maintenance) -> None:
        await maintenance.compact_fully()

    run(data, compact)
    for name, files in before:  # as if they had not been removed yet
        (names.blocks_dir(data) / name).mkdir()
        for file, content_ in files.items():
            (names.blocks_dir(data) / name / file).write_bytes(content_)
    names.catalog_file(data).unlink()
    run(data, lambda store, maintenance: nothing_is_lost(store, everything))
    assert check_folder(data) == []


def test_a_torn_end_of_the_log_costs_nothing_that_was_acknowledged(data: Path) -> None:
    everything = all_of(two_blocks_and_a_log(data))
    with segments_of(data)[-1].open("ab") as file:
        file.write(b"half of a record")
    holds(data, everything, 1)


def test_a_missing_segment_of_the_log_is_reported(data: Path) -> None:
    """Two segments, of which the first goes: what only it had is lost, and everything else is served."""
    first, second, _ = two_blocks_and_a_log(data)
    more = rows_of_day(0, 9)

    async def another_segment(store: Store, maintenance: Maintenance) -> None:
        await append(store, more[4:])

    run(data, another_segment)
    assert len(segments_of(data)) == 2
    segments_of(data)[0].unlink()
    holds(data, [*first, *second, *more[4:]], 1)


def test_flipped_bytes_in_the_log_cost_their_records_at_most(data: Path) -> None:
    """At any byte: the labels of series as well as samples. What is served is what was written, under its own name."""
    first, second, _ = two_blocks_and_a_log(data)
    flushed = as_content([*first, *second])
    steps = [[(key_of_step, NOON + number, number)] for number, key_of_step in enumerate(KEYS * 4)]

    async def fill(store: Store, maintenance: Maintenance) -> None:
        for rows in steps:
            await append(store, rows)

    run(data, fill)
    log = segments_of(data)[-1]
    whole, chosen = log.read_bytes(), random.Random(5)
    written = flushed | as_content([*rows_of_day(0), *all_of(steps)])
    for at in sorted(chosen.sample(range(HEADER_BYTES, len(whole)), 25)):
        copy = data.with_name(f"flipped{at}")
        shutil.copytree(data, copy)
        flip(names.log_dir(copy) / log.name, at)

        async def look(store: Store, maintenance: Maintenance) -> None:
            found = content(store)
            lost = written.keys() - found.keys()
            assert found.items() <= written.items()
            assert flushed.items() <= found.items()
            assert store.state.damage or not lost
            await append(store, [(b"brand new\xff", NOON, 1), *steps[0]])
            store.head.seal()
            assert await maintenance.flush(1 << 20), "what is left can be written as a block"
            now = found | as_content([(b"brand new\xff", NOON, 1), *steps[0]])
            assert content(store) == now

        run(copy, look)
        run(copy, still_there)
        shutil.rmtree(copy)


async def still_there(store: Store, maintenance: Maintenance) -> None:
    """A new series has taken over nothing of one whose labels are lost."""
    assert {at: bits for at, bits in content(store).items() if at[0] == b"brand new\xff"} == {
        (b"brand new\xff", NOON): 1
    }
