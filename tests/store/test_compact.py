"""Whatever is flushed and however it is compacted, a query reads what a dict would hold; and memory stays bounded."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import Corrupt, StorageError
from streamgauge.model.labels import key_of
from streamgauge.model.source import NoMeter
from streamgauge.store import block_merge, failpoints
from streamgauge.store.blocks import LocalBlocks, live_blocks
from streamgauge.store.check import check_block, check_blocks
from streamgauge.store.compact import CompactionPlan, full_plan, perform_compaction, plan_compaction
from streamgauge.store.flush import FlushJob, perform_flush
from streamgauge.store.ports import DAY_MS, BlockMeta, SortedRows
from streamgauge.store.watermarks import NO_WATERMARK
from streamgauge.testing.thorough import examples

DAY = 20_000 * DAY_MS
KEYS = [key_of({"__name__": f"m{i % 5}", "host": f"h{i}"}) for i in range(12)]
BITS = [0x7FF0000000000002, 0x7FF8000000000000, -0x7FFFFFFFFFFFFF, 0x7FF0000000000001, -(2**63), 1, 0, 2**62]
"""Stale marker, NaN, a NaN with a payload, a signalling NaN, -0, the smallest subnormal, 0 and 2."""

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

RAM = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a random test keeps its folders: it needs no durable disk, and thousands of syncs would take minutes."""

Model = dict[tuple[int, int], int]
"""(series id, time) to the bits of the value."""


@dataclass
class Store:
    """As much of a store as flush and compaction see: the live blocks, and a dict of what they must hold."""

    blocks: LocalBlocks
    metas: list[BlockMeta] = field(default_factory=list)
    model: Model = field(default_factory=dict)
    commit: int = 0

    def flush(self, rows: Mapping[tuple[int, int], int]) -> None:
        """Flush rows (series id, time) -> bits as the next ten commits."""
        self.commit += 10
        self.metas += perform_flush(self.job(rows), self.blocks)
        self.model.update(rows)

    def job(self, rows: Mapping[tuple[int, int], int]) -> FlushJob:
        ordered = sorted(rows)
        ids = np.array([series for series, _ in ordered], np.uint32)
        return FlushJob(
            ids=ids,
            times=np.array([time for _, time in ordered], np.int64),
            values=np.array([rows[row] for row in ordered], np.int64).view(np.float64),
            keys=pa.array([KEYS[series] for series in np.unique(ids)], pa.large_binary()),
            watermarks=np.array([self.watermark(int(series)) for series in np.unique(ids)], np.int64),
            first_commit=self.commit - 9,
            last_commit=self.commit,
        )

    def watermark(self, series: int) -> int:
        return max((time for of, time in self.model if of == series), default=NO_WATERMARK)

    def compact(self, plan: CompactionPlan) -> None:
        written = perform_compaction(plan, self.blocks)
        gone = {meta.id for meta in plan.inputs}
        self.metas = [meta for meta in self.metas if meta.id not in gone] + written
        for block_id in gone:
            self.blocks.remove(block_id)

    def read(self) -> Model:
        """All samples by the rule of BlockMeta: late blocks win over others, the later commit among late ones."""
        found: Model = {}
        for meta in sorted(self.metas, key=lambda meta: (meta.late, meta.last_commit)):
            with self.blocks.open(meta.id) as reader:
                ids = np.sort(reader.series_ids())
                part = reader.read(ids, meta.min_time, meta.max_time, NoMeter())
                rows = zip(np.repeat(ids, part.counts).tolist(), part.times.tolist(), strict=True)
                found.update(zip(rows, part.values.view(np.int64).tolist(), strict=True))
        return found

    def problems(self) -> list[str]:
        found = check_blocks(self.metas, self.blocks.open)
        for meta in self.metas:
            with self.blocks.open(meta.id) as reader:
                found += check_block(reader)
        return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(LocalBlocks(tmp_path))


def rows(days: int) -> st.SearchStrategy[Model]:
    """Rows on a coarse grid of times, so that they meet, over some days."""
    time = st.builds(lambda day, step: DAY + day * DAY_MS + step, st.integers(0, days - 1), st.integers(0, 4))
    return st.dictionaries(
        st.tuples(st.integers(0, len(KEYS) - 1), time), st.sampled_from(BITS), min_size=1, max_size=30
    )


@settings(max_examples=examples(15), deadline=None)
@given(st.lists(st.tuples(rows(12), st.integers(0, 2)), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_reads_equal_a_dict_whatever_is_flushed_and_compacted(
    flushes: list[tuple[Model, int]], choice: random.Random
) -> None:
    with TemporaryDirectory(dir=RAM) as folder:
        store = Store(LocalBlocks(Path(folder)))
        for flushed, compactions in flushes:
            store.flush(flushed)
            for _ in range(compactions):
                plans = [
                    plan for plan in (plan_compaction(store.metas, DAY + 4 * DAY_MS), full_plan(store.metas)) if plan
                ]
                if plans:
                    store.compact(choice.choice(plans))
        assert store.read() == store.model
        assert store.problems() == []
        while plan := full_plan(store.metas):
            store.compact(plan)
        assert store.read() == store.model
        assert store.problems() == []
        windows = [meta.window for meta in store.metas]
        assert len(set(windows)) == len(windows)
        assert not any(meta.late for meta in store.metas)


def normal(first: int, samples: int, window: int = DAY, level: int = 0) -> BlockMeta:
    """A block of commits first to first + 9."""
    name = f"{window}-{first}-{level}"
    return BlockMeta(name, first, first + 9, window, window + 1000, window, False, level, 1, samples, samples)


def late(first: int, samples: int, window: int = DAY) -> BlockMeta:
    return BlockMeta(
        f"late-{window}-{first}", first, first + 9, window, window + 9, window, True, 0, 1, samples, samples
    )


def wide(first: int, days: int, samples: int = 100) -> BlockMeta:
    end = DAY + days * DAY_MS
    return BlockMeta(f"wide-{first}", first, first + 9, DAY, end, -1, True, 0, 1, samples, samples)


def test_four_blocks_of_like_size_are_merged_and_fewer_are_not() -> None:
    blocks = [normal(first, 100) for first in (1, 11, 21, 31)]
    assert plan_compaction(blocks[:3], DAY) is None
    assert plan_compaction(blocks, DAY) == CompactionPlan(tuple(blocks), late=False)


def test_a_large_block_is_not_rewritten_for_small_ones() -> None:
    blocks = [normal(1, 10_000, level=3), *(normal(first, 100) for first in (11, 21, 31, 41))]
    plan = plan_compaction(blocks, DAY)
    assert plan is not None
    assert plan.inputs == tuple(blocks[1:])


def test_each_row_is_rewritten_a_logarithmic_number_of_times() -> None:
    blocks: list[BlockMeta] = []
    rewritten = 0
    for flush in range(1024):
        blocks.append(normal(1 + 10 * flush, 1))
        while plan := plan_compaction(blocks, DAY):
            rewritten += plan.samples
            merged = normal(plan.inputs[0].first_commit, plan.samples, level=1 + plan.inputs[-1].level)
            at = blocks.index(plan.inputs[0])
            blocks[at : at + len(plan.inputs)] = [merged]
    assert rewritten <= 1024 * 10
    assert len(blocks) <= 4 * 5


def test_a_day_that_has_ended_becomes_one_block_once_a_later_flush_left_it_alone() -> None:
    day = [normal(1, 100), normal(11, 100)]
    next_day = normal(21, 100, window=DAY + DAY_MS)
    assert plan_compaction([*day, next_day], DAY + DAY_MS - 1) is None  # it may still grow
    assert plan_compaction(day, DAY + DAY_MS) is None  # the last flush added to it
    whole = CompactionPlan(tuple(day), late=False, lasting=True)
    assert plan_compaction([*day, next_day], DAY + DAY_MS) == whole
    assert plan_compaction(day, DAY + DAY_MS, idle=True) == whole
    assert plan_compaction(day, DAY + DAY_MS - 1, idle=True) is None


def test_a_day_that_has_ended_is_not_rewritten_for_crumbs() -> None:
    day = [normal(1, 100_000, level=2), late(11, 10)]
    assert plan_compaction([*day, normal(21, 100, window=DAY + DAY_MS)], DAY + DAY_MS) is None


def test_late_blocks_are_merged_with_the_whole_day_once_they_are_a_quarter_of_it() -> None:
    blocks = [normal(1, 100), normal(11, 100), late(11, 30), normal(21, 100), late(31, 30)]
    assert plan_compaction(blocks, DAY) is None
    heavy = [*blocks, late(41, 30)]
    assert plan_compaction(heavy, DAY) == CompactionPlan(
        (blocks[0], blocks[1], blocks[3], blocks[2], blocks[4], heavy[-1]), late=False
    )


def test_a_day_is_not_merged_while_a_late_block_over_several_days_touches_it() -> None:
    blocks = [normal(1, 100), late(11, 90), wide(21, days=20)]
    assert plan_compaction(blocks, DAY) is None
    elsewhere = BlockMeta("w", 21, 30, DAY + 5 * DAY_MS, DAY + 30 * DAY_MS, -1, True, 0, 1, 100, 100)
    assert plan_compaction([*blocks[:2], elsewhere], DAY) == CompactionPlan(tuple(blocks[:2]), late=False)


def test_a_late_block_over_several_days_is_split_once_no_more_of_them_come() -> None:
    later = normal(31, 100)
    assert plan_compaction([wide(1, 20), later], DAY) == CompactionPlan((wide(1, 20),), late=True, split=True)
    assert plan_compaction([wide(1, 20)], DAY) is None
    assert plan_compaction([wide(1, 20)], DAY, idle=True) == CompactionPlan((wide(1, 20),), late=True, split=True)
    both = wide(1, 20), wide(11, 20)
    assert plan_compaction([*both, later], DAY) == CompactionPlan(both, late=True)


def test_late_blocks_are_not_merged_over_one_that_stands_between_them() -> None:
    quartet = [late(first, 10) for first in (1, 11, 31, 41)]
    assert plan_compaction([normal(51, 9000), *quartet], DAY) == CompactionPlan(tuple(quartet), late=True)
    plan = plan_compaction([normal(51, 9000), *quartet, wide(21, 20)], DAY)
    assert plan is not None
    assert plan.split


def test_a_day_of_many_blocks_is_merged_in_steps() -> None:
    blocks = [normal(1 + 10 * flush, 1000 - flush) for flush in range(40)]
    plan = full_plan(blocks)
    assert plan is not None
    assert len(plan.inputs) == 16
    assert plan.inputs == tuple(blocks[24:])  # neighbours, and the smallest ones


def test_full_compaction_rewrites_what_only_a_flush_has_written() -> None:
    assert full_plan([normal(1, 100)]) == CompactionPlan((normal(1, 100),), late=False, lasting=True)
    assert full_plan([normal(1, 100, level=1)]) is None
    assert full_plan([]) is None


def test_a_late_value_wins_and_keeps_its_bits(store: Store) -> None:
    store.flush({(0, DAY + step): bits for step, bits in enumerate(BITS)})
    store.flush({(0, DAY + step): bits for step, bits in enumerate(reversed(BITS))})
    assert [meta.late for meta in store.metas] == [False, True]
    plan = full_plan(store.metas)
    assert plan is not None
    store.compact(plan)
    [meta] = store.metas
    assert (meta.late, meta.level, meta.samples) == (False, 1, len(BITS))
    assert (meta.first_commit, meta.last_commit) == (1, 20)
    assert store.read() == store.model


def test_a_split_keeps_commits_and_lateness(store: Store) -> None:
    times = [DAY + day * DAY_MS for day in range(40)]
    store.flush(dict.fromkeys([(series, time) for series in (0, 1) for time in times], 0))
    store.flush(dict.fromkeys([(1, time) for time in times], 1))
    [whole] = [meta for meta in store.metas if meta.late]
    assert whole.window == -1
    written = perform_compaction(CompactionPlan((whole,), late=True, split=True), store.blocks)
    assert [meta.window for meta in written] == times
    assert {(meta.first_commit, meta.last_commit, meta.late, meta.parents) for meta in written} == {
        (11, 20, True, (whole.id,))
    }
    assert live_blocks([whole, *written]) == (written, [whole])
    assert live_blocks([whole, *written[1:]]) == ([whole], sorted(written[1:], key=lambda meta: meta.id))


def test_a_series_longer_than_a_chunk_is_merged_in_stretches_of_time(store: Store) -> None:
    rows = 3 * block_merge.CHUNK_ROWS // 2
    key = pa.array([KEYS[0]], pa.large_binary())
    even = np.arange(0, 2 * rows, 2) + DAY
    mixed = np.unique(np.concatenate((even[::3], even[: rows // 3] + 1)))
    blocks = [(even, 1.0, False, 1), (mixed, 2.0, True, 11)]
    for times, value, is_late, first in blocks:
        meta = BlockMeta(f"b{first}", first, first + 9, 0, 0, DAY, is_late, 0, 0, 0, 0)
        values = np.full(len(times), value)
        store.metas.append(
            store.blocks.write(meta, SortedRows(np.zeros(1, np.uint32), key, np.array([len(times)]), times, values))
        )
    store.compact(CompactionPlan(tuple(store.metas), late=False))
    with store.blocks.open(store.metas[0].id) as reader:
        part = reader.read(np.zeros(1, np.uint32), DAY, DAY + DAY_MS, NoMeter())
    expected = np.union1d(even, mixed)
    np.testing.assert_array_equal(part.times, expected)
    np.testing.assert_array_equal(part.values, np.where(np.isin(expected, mixed), 2.0, 1.0))
    assert store.problems() == []


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from streamgauge.model.labels import key_of
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.compact import CompactionPlan, perform_compaction
from streamgauge.store.flush import FlushJob, perform_flush

DAY, SERIES, STEPS = 20_000 * 86_400_000, 2000, 600
blocks = LocalBlocks(Path(sys.argv[1]))
keys = pa.array([key_of({"__name__": "m", "host": str(i)}) for i in range(SERIES)], pa.large_binary())
ids = np.repeat(np.arange(SERIES, dtype=np.uint32), STEPS)
values = np.tile(np.arange(STEPS, dtype=np.float64), SERIES)
metas = []
for flush in range(int(sys.argv[2])):
    times = np.tile(DAY + 1000 * (flush * STEPS + np.arange(STEPS)), SERIES)
    watermarks = np.full(SERIES, times[0] - 1)
    metas += perform_flush(FlushJob(ids, times, values, keys, watermarks, 10 * flush + 1, 10 * flush + 10), blocks)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
[merged] = perform_compaction(CompactionPlan(tuple(metas), late=False), blocks)
assert merged.samples == len(metas) * len(ids)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs resource.getrusage")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    output = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), "10"], check=True, capture_output=True, text=True, env=ENVIRONMENT
    ).stdout
    rows = 10 * 2000 * 600
    assert int(output) * unit < 100e6 < rows * 16


def test_a_damaged_input_is_named_and_nothing_is_left_behind(store: Store, tmp_path: Path) -> None:
    store.flush({(0, DAY): 0})
    store.flush({(0, DAY + 1): 0})
    damaged = tmp_path / "blocks" / store.metas[1].id / "samples.parquet"
    content = bytearray(damaged.read_bytes())
    content[20] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(Corrupt, match=store.metas[1].id):
        perform_compaction(CompactionPlan(tuple(store.metas), late=False), store.blocks)
    assert store.blocks.names() == sorted(meta.id for meta in store.metas)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("point", ["fs.open", "fs.write", "fs.sync", "fs.rename"])
@pytest.mark.parametrize("nth", [1, 4, 9])
def test_a_disk_that_fails_leaves_the_inputs_alone(store: Store, tmp_path: Path, point: str, nth: int) -> None:
    store.flush({(0, DAY + day * DAY_MS): 0 for day in range(10)} | {(1, DAY + 9 * DAY_MS): 0})
    store.flush({(0, DAY + day * DAY_MS): 1 for day in range(10)})
    before = store.blocks.names()
    [whole] = [meta for meta in store.metas if meta.window == -1]
    plan = CompactionPlan((whole,), late=True, split=True)
    with failpoints.armed(point, "enospc", first=nth, last=nth), pytest.raises(StorageError):
        perform_compaction(plan, store.blocks)
    assert store.blocks.names() == before
    assert store.read() == store.model


@pytest.mark.parametrize(
    "point", ["compact.before_write", "block.before_rename", "block.after_rename", "compact.after_write"]
)
def test_a_compaction_that_is_killed_loses_and_doubles_nothing(store: Store, tmp_path: Path, point: str) -> None:
    store.flush({(0, DAY): 0, (1, DAY): 1})
    store.flush({(0, DAY): 2, (1, DAY + 1): 3})
    child = """
import sys
from pathlib import Path
from streamgauge.store import failpoints
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.compact import full_plan, perform_compaction
failpoints.arm_from_environment()
blocks = LocalBlocks(Path(sys.argv[1]))
perform_compaction(full_plan(blocks.scan()[0]), blocks)
"""
    environment = ENVIRONMENT | {failpoints.VARIABLE: f"{point}=kill"}
    assert subprocess.run([sys.executable, "-c", child, str(tmp_path)], env=environment).returncode != 0
    found, damage = store.blocks.scan()
    assert damage == []
    store.metas, superseded = live_blocks(found)
    assert len(superseded) == (len(found) > 3) * 3
    assert store.read() == store.model
    assert store.problems() == []
