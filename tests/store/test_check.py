"""The checker finds each kind of wrong block. They are written on purpose: the writer trusts its caller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streamgauge.model.labels import key_of
from streamgauge.store.block_encodings import FLUSHED
from streamgauge.store.block_reader import LocalBlockReader
from streamgauge.store.blocks import LocalBlocks
from streamgauge.store.check import check_block, check_blocks, check_tombstones
from streamgauge.store.ports import DAY_MS, BlockMeta, Tombstone

DAY = 20_000 * DAY_MS
META = BlockMeta("b", 11, 20, 0, 0, DAY, False, 0, 0, 0, 0)
KEYS = [key_of({"__name__": "m", "n": str(n)}) for n in range(3)]


@pytest.fixture
def blocks(tmp_path: Path) -> LocalBlocks:
    return LocalBlocks(tmp_path)


def write(
    blocks: LocalBlocks,
    meta: BlockMeta = META,
    ids: tuple[int, ...] = (0, 1, 2),
    keys: list[bytes] = KEYS,
    times: tuple[tuple[int, ...], ...] = ((0, 1), (0, 1), (0, 1)),
) -> BlockMeta:
    """A block with the given times of each series, in ms from the start of the day."""
    counts = np.array([len(of) for of in times])
    rows = DAY + np.concatenate([np.array(of, np.int64) for of in times])
    with blocks.writer(meta, FLUSHED) as writer:
        writer.append(np.array(ids, np.uint32), counts, rows, np.zeros(len(rows)))
        return writer.finish(pa.array(keys, pa.large_binary()))


def problems(blocks: LocalBlocks, meta: BlockMeta) -> list[str]:
    with blocks.open(meta.id) as reader:
        return check_block(reader)


def test_a_good_block_has_no_problem(blocks: LocalBlocks) -> None:
    assert problems(blocks, write(blocks)) == []


@pytest.mark.parametrize(
    ("meta", "what"),
    [
        (replace(META, first_commit=21), "commits run from 21 to 20"),
        (replace(META, window=-1), "is not late"),
        (replace(META, window=DAY + 1), "not the start of a day"),
        (replace(META, window=DAY + DAY_MS), "not all in its window"),
        (replace(META, level=1), "level 1 and 0 parents"),
        (replace(META, parents=("a",)), "level 0 and 1 parents"),
        (replace(META, tombstones=(2, 1)), "do not ascend"),
        (replace(META, tombstones=(0, 1)), "do not ascend"),
    ],
)
def test_a_footer_that_cannot_be(blocks: LocalBlocks, meta: BlockMeta, what: str) -> None:
    [problem] = problems(blocks, write(blocks, meta))
    assert problem.startswith("block b: ")
    assert what in problem


def test_series_out_of_order(blocks: LocalBlocks) -> None:
    [problem] = problems(blocks, write(blocks, keys=[KEYS[1], KEYS[0], KEYS[2]]))
    assert "order of their keys" in problem


def test_a_key_that_occurs_twice(blocks: LocalBlocks) -> None:
    [problem] = problems(blocks, write(blocks, keys=[KEYS[0], KEYS[0], KEYS[2]]))
    assert "occurs twice" in problem


def test_an_id_that_occurs_twice(blocks: LocalBlocks) -> None:
    [problem] = problems(blocks, write(blocks, ids=(7, 8, 7)))
    assert "series id occurs more than once" in problem


@pytest.mark.parametrize("of", [(0, 2, 1, 3), (0, 1, 1, 3)])
def test_times_that_do_not_ascend(blocks: LocalBlocks, of: tuple[int, ...]) -> None:
    [problem] = problems(blocks, write(blocks, times=((0,), of, (0,))))
    assert "do not ascend" in problem


def test_times_that_do_not_ascend_between_row_groups(blocks: LocalBlocks) -> None:
    with blocks.writer(META, FLUSHED) as writer:
        for start in (0, 98_303):  # the second row group begins with the last time of the first
            times = DAY + start + np.arange(98_304)
            writer.append(np.zeros(1, np.uint32), np.array([98_304]), times, np.zeros(98_304))
        writer.finish(pa.array(KEYS[:1], pa.large_binary()))
    [problem] = problems(blocks, META)
    assert "row group 1" in problem


def test_damage_is_a_problem_not_an_exception(blocks: LocalBlocks, tmp_path: Path) -> None:
    write(blocks)
    path = tmp_path / "blocks" / "b" / "samples.parquet"
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    [problem] = problems(blocks, META)
    assert problem == "block b: samples.parquet cannot be read: row group 0 is damaged"
    other = write(blocks, replace(META, id="c", first_commit=21, last_commit=30))
    assert problem in check_blocks([META, other], blocks.open)


def open_nothing(block_id: str) -> LocalBlockReader:
    raise AssertionError(f"{block_id} is opened without need")


def test_normal_blocks_of_a_day_must_be_disjoint(blocks: LocalBlocks) -> None:
    later = replace(META, id="c", first_commit=21, last_commit=30)
    first = write(blocks, times=((0, 2, 4), (0, 1), (0, 1)))
    disjoint = write(blocks, later, times=((1, 3, 5), (2, 3), (2, 3)))
    assert check_blocks([first, disjoint], blocks.open) == []
    blocks.remove("c")
    doubled = write(blocks, later, times=((1, 2, 4), (2, 3), (2, 3)))
    [problem] = check_blocks([first, doubled], blocks.open)
    assert "b, c, none of them late, have 2 samples in common" in problem


def test_late_blocks_may_hold_what_others_hold(blocks: LocalBlocks) -> None:
    late = replace(META, id="late", first_commit=21, last_commit=30, late=True)
    assert check_blocks([write(blocks), write(blocks, late)], blocks.open) == []


def test_commits_of_one_time_belong_to_one_block(blocks: LocalBlocks) -> None:
    overlapping = replace(META, id="c", first_commit=20, last_commit=30)
    metas = [write(blocks), write(blocks, overlapping, times=((2, 3), (2, 3), (2, 3)))]
    [problem] = check_blocks(metas, blocks.open)
    assert problem == "blocks b and c hold the same commits of the same time"
    wide = replace(META, id="w", window=-1, late=True, min_time=DAY, max_time=DAY + 20 * DAY_MS)
    within = replace(wide, id="x", window=DAY + 3 * DAY_MS, min_time=DAY + 3 * DAY_MS, max_time=DAY + 3 * DAY_MS)
    assert len(check_blocks([wide, within], open_nothing)) == 1
    assert check_blocks([wide, replace(within, first_commit=21, last_commit=30)], open_nothing) == []


def test_blocks_of_different_days_need_not_be_opened() -> None:
    tomorrow = replace(META, id="c", window=DAY + DAY_MS, min_time=DAY + DAY_MS, max_time=DAY + DAY_MS)
    today = replace(META, min_time=DAY, max_time=DAY)
    assert check_blocks([today, tomorrow], open_nothing) == []
    late = replace(today, late=True)
    assert "a block is listed more than once" in check_blocks([late, late], open_nothing)


# ---- deletions ------------------------------------------------------------------------------------------------------


def tombstone(series: tuple[int, ...] = (1,), start: int = DAY, end: int = DAY, number: int = 3) -> Tombstone:
    return Tombstone(number, 20, start, end, np.array(series, "<u4").tobytes())


def test_a_deletion_that_waits_is_no_problem(blocks: LocalBlocks) -> None:
    assert check_tombstones([tombstone()], [write(blocks)], 3, blocks.open) == []


def test_a_deletion_that_was_carried_out_is_no_problem(blocks: LocalBlocks) -> None:
    cleaned = write(blocks, replace(META, tombstones=(3,)), times=((0, 1), (1,), (0, 1)))
    merged_with_later = replace(cleaned, id="m", last_commit=30)
    assert check_tombstones([tombstone()], [cleaned, merged_with_later], 3, blocks.open) == []


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (tombstone(number=0), "its id is not above 0"),
        (tombstone(start=DAY + 1), "its times run from"),
        (tombstone(series=()), "take 0 bytes"),
        (replace(tombstone(), series=b"123"), "take 3 bytes"),
        (tombstone(series=(1, 1)), "do not ascend"),
        (tombstone(series=(1, 3)), "means series 3, and none has an id above 2"),
    ],
)
def test_a_deletion_that_cannot_be(wrong: Tombstone, what: str) -> None:
    [problem] = check_tombstones([wrong], [META], 3, open_nothing)
    assert problem.startswith(f"deletion {wrong.id}: ")
    assert what in problem


def test_a_block_that_lists_a_deletion_and_has_its_samples(blocks: LocalBlocks) -> None:
    meta = write(blocks, replace(META, tombstones=(3,)))
    [problem] = check_tombstones([tombstone(series=(1, 2))], [meta], 3, blocks.open)
    assert problem == "deletion 3: block b lists it, and still has 2 of its samples"


def test_aggregates_of_what_was_left_may_stand_for_times_that_a_deletion_meant(blocks: LocalBlocks) -> None:
    """That of ten ms which ends at 9 stays where some of them were deleted before it was made, not where all were."""
    meta = replace(META, resolution=10, tombstones=(3,), level=1, parents=("a",))
    write(blocks, replace(META, tombstones=(3,)), times=((9,), (9,), (9,)))
    meta = replace(meta, min_time=DAY + 9, max_time=DAY + 9, samples=3, series=3)

    def problems_of(start: int, end: int) -> list[str]:
        return check_tombstones([tombstone((1,), DAY + start, DAY + end)], [meta], 3, blocks.open)

    assert problems_of(2, 9) == []
    assert problems_of(0, 8) == []
    assert "still has 1 of its samples" in problems_of(0, 9)[0]


def test_a_block_that_lists_a_deletion_from_before_it(blocks: LocalBlocks) -> None:
    meta = replace(META, first_commit=21, last_commit=30, tombstones=(3,))
    [problem] = check_tombstones([tombstone()], [meta], 3, open_nothing)
    assert "is of later commits" in problem
