"""A flush sorts rows of the head into blocks: by day, and by whether they come after what blocks hold already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgauge.errors import StorageError
from streamgauge.model.labels import key_of
from streamgauge.model.source import NoMeter
from streamgauge.store import failpoints
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.check import check_block, check_blocks
from streamgauge.store.flush import MAX_LATE_DAYS, FlushJob, perform_flush
from streamgauge.store.ports import DAY_MS, BlockMeta
from streamgauge.store.watermarks import NO_WATERMARK
from streamgauge.testing.thorough import examples

DAY = 20_000 * DAY_MS
KEYS = [key_of({"__name__": name, "n": str(n)}) for n, name in enumerate(["b", "a", "d", "c"])]


RAM = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a random test keeps its folders: it needs no durable disk, and hundreds of syncs would take long."""


def job(rows: dict[tuple[int, int], float], watermarks: dict[int, int] | None = None) -> FlushJob:
    """Rows (series, time) -> value as commits 11 to 20."""
    ordered = sorted(rows)
    ids = np.array([series for series, _ in ordered], np.uint32)
    present = np.unique(ids).tolist()
    return FlushJob(
        ids=ids,
        times=np.array([time for _, time in ordered], np.int64),
        values=np.array([rows[row] for row in ordered], np.float64),
        keys=pa.array([KEYS[series] for series in present], pa.large_binary()),
        watermarks=np.array([(watermarks or {}).get(series, NO_WATERMARK) for series in present], np.int64),
        first_commit=11,
        last_commit=20,
    )


@pytest.fixture
def blocks(tmp_path: Path) -> LocalBlocks:
    return LocalBlocks(tmp_path)


def contents(blocks: LocalBlocks, meta: BlockMeta) -> dict[tuple[int, int], float]:
    with blocks.open(meta.id) as reader:
        assert check_block(reader) == []
        ids = np.sort(reader.series_ids())
        part = reader.read(ids, meta.min_time, meta.max_time, NoMeter())
    keys = zip(np.repeat(ids, part.counts).tolist(), part.times.tolist(), strict=True)
    return dict(zip(keys, part.values.tolist(), strict=True))


def test_rows_of_one_day_make_one_block_ordered_by_key(blocks: LocalBlocks) -> None:
    rows = {(series, DAY + time): series + time / 10 for series in range(4) for time in (0, 5)}
    [meta] = perform_flush(job(rows), blocks)
    assert (meta.first_commit, meta.last_commit, meta.window, meta.late, meta.level) == (11, 20, DAY, False, 0)
    assert (meta.series, meta.samples, meta.min_time, meta.max_time) == (4, 8, DAY, DAY + 5)
    assert contents(blocks, meta) == rows
    with blocks.open(meta.id) as reader:
        assert reader.keys().to_pylist() == sorted(KEYS)
        assert reader.series_ids().tolist() == [1, 0, 3, 2]
    assert blocks.scan() == ([meta], [])


def test_each_day_has_its_block(blocks: LocalBlocks) -> None:
    rows = {(0, DAY - 1): 1.0, (0, DAY): 2.0, (0, DAY + DAY_MS): 3.0, (2, DAY + DAY_MS - 1): 4.0, (1, -1): 5.0}
    metas = perform_flush(job(rows), blocks)
    assert [meta.window for meta in metas] == [-DAY_MS, DAY - DAY_MS, DAY, DAY + DAY_MS]
    assert {row: value for meta in metas for row, value in contents(blocks, meta).items()} == rows


def test_a_row_at_or_below_its_watermark_is_late(blocks: LocalBlocks) -> None:
    rows = {(series, DAY + time): time for series in (0, 1) for time in (1, 2, 3)}
    normal, late = perform_flush(job(rows, {0: DAY + 2}), blocks)
    assert (normal.late, late.late) == (False, True)
    assert set(contents(blocks, late)) == {(0, DAY + 1), (0, DAY + 2)}
    assert set(contents(blocks, normal)) == set(rows) - set(contents(blocks, late))


@pytest.mark.parametrize(("days", "expected"), [(MAX_LATE_DAYS, MAX_LATE_DAYS), (MAX_LATE_DAYS + 1, 1)])
def test_late_rows_over_many_days_make_one_block(blocks: LocalBlocks, days: int, expected: int) -> None:
    rows = {(series, DAY + day * DAY_MS): day for series in (0, 3) for day in range(days)}
    metas = perform_flush(job(rows, dict.fromkeys(range(4), DAY + 100 * DAY_MS)), blocks)
    assert len(metas) == expected
    assert all(meta.late for meta in metas)
    assert [meta.window for meta in metas] == ([-1] if expected == 1 else [DAY + day * DAY_MS for day in range(days)])
    assert {row: value for meta in metas for row, value in contents(blocks, meta).items()} == rows


def test_nothing_makes_no_block(blocks: LocalBlocks) -> None:
    assert perform_flush(job({}), blocks) == []


@settings(max_examples=examples(40), deadline=None)
@given(
    st.dictionaries(
        st.tuples(
            st.integers(0, 3),
            st.builds(lambda day, step: DAY + day * DAY_MS + step, st.integers(0, 11), st.integers(0, 3)),
        ),
        st.floats(allow_nan=False),
        min_size=1,
        max_size=40,
    ),
    st.dictionaries(st.integers(0, 3), st.integers(0, 11).map(lambda day: DAY + day * DAY_MS + 1)),
)
def test_every_row_goes_where_the_rules_say(rows: dict[tuple[int, int], float], watermarks: dict[int, int]) -> None:
    late = {row for row in rows if row[1] <= watermarks.get(row[0], NO_WATERMARK)}
    wide = len({time // DAY_MS for _, time in late}) > MAX_LATE_DAYS
    found: dict[tuple[int, int], float] = {}
    with TemporaryDirectory(dir=RAM) as folder:
        blocks = LocalBlocks(Path(folder))
        metas = perform_flush(job(rows, watermarks), blocks)
        for meta in metas:
            held = contents(blocks, meta)
            assert not found.keys() & held.keys()
            found |= held
            assert {row in late for row in held} == {meta.late}
            assert {-1 if wide and meta.late else time // DAY_MS * DAY_MS for _, time in held} == {meta.window}
    assert found == rows
    assert len({(meta.late, meta.window) for meta in metas}) == len(metas)


def test_blocks_of_one_flush_agree(blocks: LocalBlocks) -> None:
    rows = {(series, DAY + day * DAY_MS + step): 1.0 for series in range(4) for day in range(3) for step in range(3)}
    metas = perform_flush(job(rows, {1: DAY + DAY_MS, 2: DAY + 1}), blocks)
    assert check_blocks(metas, blocks.open) == []


def test_a_flush_that_fails_takes_back_what_it_has_written(blocks: LocalBlocks) -> None:
    rows = {(0, DAY + day * DAY_MS): 1.0 for day in range(4)}
    with failpoints.armed("fs.rename", "enospc", first=3), pytest.raises(StorageError):
        perform_flush(job(rows), blocks)
    assert blocks.names() == []
    assert len(perform_flush(job(rows), blocks)) == 4


CHILD = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from streamgauge.store import failpoints
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.flush import FlushJob, perform_flush
from streamgauge.store.watermarks import NO_WATERMARK
failpoints.arm_from_environment()
times = np.arange(3) * 86_400_000
keys, watermarks = pa.array([b"m\\xff"], pa.large_binary()), np.full(1, NO_WATERMARK)
job = FlushJob(np.zeros(3, np.uint32), times, times * 1.0, keys, watermarks, 1, 9)
perform_flush(job, LocalBlocks(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("point", "whole"),
    [
        ("flush.before_blocks=kill", 0),
        ("block.before_rename=kill@2", 1),
        ("block.after_rename=kill@2", 2),
        ("flush.after_block_written=kill@3", 3),
    ],
)
def test_a_flush_that_is_killed_leaves_whole_blocks_only(
    blocks: LocalBlocks, tmp_path: Path, point: str, whole: int
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), failpoints.VARIABLE: point}
    assert subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environment).returncode != 0
    found, damage = blocks.scan()
    assert damage == []
    assert [contents(blocks, meta) for meta in found] == [{(0, day * DAY_MS): day * DAY_MS} for day in range(whole)]
