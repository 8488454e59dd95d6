"""A backup has all that was acknowledged, copies what is new, and counts only once all of it is verified."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from streamgauge.backup import place as places
from streamgauge.backup.blocks import BlockGone
from streamgauge.backup.folder import FolderPlace
from streamgauge.backup.place import backup_name, backups
from streamgauge.backup.prune import Pruned, prune
from streamgauge.backup.restore import choose, restore
from streamgauge.backup.verify import problems
from streamgauge.backup.write import Options
from streamgauge.clock import ManualClock
from streamgauge.errors import Corrupt, FolderInUse, FormatTooNew, NotFound, ReadOnly, StorageError
from streamgauge.model.source import AggregateKind, Matcher, MatchOp, NoMeter
from streamgauge.store import names
from streamgauge.store.failpoints import armed
from streamgauge.store.folder import refuse_foreign, require_data_folder
from streamgauge.store.folder_snapshot import FolderSnapshots
from streamgauge.store.lock import alone
from streamgauge.store.offline import compact_folder, open_folder
from streamgauge.store.ports import DAY_MS, FIRST_TIME
from streamgauge.store.resolutions import thinned_through
from streamgauge.store.verify import check_folder
from streamgauge.testing.lives import KEYS, NOON, RETENTION, TIERS, batch_of, opened

from .conftest import Tally, back_up, content, files_of, flip, grow, thin

COPY = Options(copy=True)


def blocks_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blocks").iterdir()}


def restored(place: FolderPlace, target: Path, name: str | None = None) -> Path:
    restore(place, places.manifest(place, choose(place, name)), target, Tally())
    return target


# ---- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Options(), COPY, Options(copy=True, verify=False)])
def test_what_comes_back_is_what_was_there(data: Path, place: FolderPlace, tmp_path: Path, options: Options) -> None:
    made = back_up(data, place, options)
    assert made.blocks == made.new_blocks == len(blocks_in(data)) == 4
    assert (made.copied, made.linked) == ((made.size, 0) if options.copy else (0, made.size))
    back = restored(place, tmp_path / "back")
    assert content(back) == content(data)
    assert [path.name for path in sorted(back.iterdir())] == ["blocks", "catalog.sqlite"]
    assert list(problems(place, backups(place), Tally())) == []


def aggregates_of(data: Path) -> tuple[list[int], list[float]]:
    """Times and counts of the aggregates in a good folder."""
    assert check_folder(data) == []
    with open_folder(data) as (snapshot, _):
        end = thinned_through(snapshot.blocks) - 1
        found = snapshot.open({}).select([], FIRST_TIME, end, NoMeter(), AggregateKind.COUNT).samples
        return found.times.tolist(), found.values.tolist()


def test_aggregates_and_a_snapshot_of_them_come_back(tmp_path: Path, place: FolderPlace) -> None:
    data = tmp_path / "thinned"

    async def life() -> Path:
        clock = ManualClock(NOON)
        async with opened(data, clock, RETENTION, tiers=TIERS) as (store, maintenance):
            await store.append(batch_of(store, [(key, NOON + at, at) for key in KEYS for at in range(200)]))
            await clock.advance(3 * DAY_MS / 1000)
            await store.append(batch_of(store, [(KEYS[0], clock.now_ms(), 1)]))
            assert await maintenance.expire()
            await maintenance.flush_all()
            name = await FolderSnapshots(maintenance, data, clock).take(skip_head=False)
            return names.snapshot_dir(data, name)

    snapshot = asyncio.run(life())
    expected = aggregates_of(data)
    assert expected[1] == [200.0] * len(KEYS)
    assert aggregates_of(snapshot) == expected
    assert back_up(data, place, COPY).new_blocks == 2
    assert aggregates_of(restored(place, tmp_path / "back")) == expected
    assert list(problems(place, backups(place), Tally())) == []


def test_the_next_one_copies_what_is_new(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place, COPY)
    first, before = content(data), blocks_in(data)
    grow(data, 3)
    progress = Tally()
    made = back_up(data, place, COPY, progress)
    assert (made.blocks, made.new_blocks) == (6, 2)
    new = sum(
        path.stat().st_size for block in blocks_in(data) - before for path in names.block_dir(data, block).iterdir()
    )
    assert made.copied == progress.expected == progress.told["copied"] == progress.told["verified"] == new
    older, newer = backups(place)
    assert content(restored(place, tmp_path / "older", older)) == first
    assert content(restored(place, tmp_path / "newer", newer)) == content(data)


def test_aggregates_come_back_too(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    thin(data)
    assert {path.name for path in data.glob("blocks/*/*.parquet")} == {names.SAMPLES, names.AGGREGATES, names.SERIES}
    back_up(data, place, COPY)
    back = restored(place, tmp_path / "back")
    assert content(back) == content(data)
    assert files_of(back / "blocks") == files_of(data / "blocks")
    assert list(problems(place, backups(place), Tally())) == []


def test_what_compaction_replaced_stays_in_older_backups(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place)
    before = content(data)
    asyncio.run(compact_folder(data))
    back_up(data, place)
    older, newer = backups(place)
    assert content(restored(place, tmp_path / "older", older)) == content(restored(place, tmp_path / "newer", newer))
    assert content(tmp_path / "older") == before


def test_a_store_without_anything_comes_back_without_anything(tmp_path: Path, place: FolderPlace) -> None:
    async def life() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)):
            pass

    asyncio.run(life())
    assert back_up(tmp_path / "data", place).blocks == 0
    assert content(restored(place, tmp_path / "back")) == {}


def test_deletions_that_wait_come_back_and_mean_nothing_that_is_written_later(
    data: Path, place: FolderPlace, tmp_path: Path
) -> None:
    where = [[Matcher("job", MatchOp("="), "a")]]

    async def delete() -> None:
        async with opened(data, ManualClock(NOON)) as (_, maintenance):
            await maintenance.delete(where, NOON, NOON + 50)

    async def write_again() -> None:
        async with opened(tmp_path / "back", ManualClock(NOON)) as (store, maintenance):
            assert store.state.tombstones
            await store.append(batch_of(store, [(KEYS[0], NOON + 7, 77)]))
            await maintenance.compact_fully()

    asyncio.run(delete())
    back_up(data, place)
    before = content(data)
    assert (KEYS[0], NOON + 7) not in before
    back = restored(place, tmp_path / "back")
    assert content(back) == before
    asyncio.run(write_again())
    assert content(back) == before | {(KEYS[0], NOON + 7): 77}


# ---- hard links -----------------------------------------------------------------------------------------------------


def test_files_are_second_names_where_that_can_be_and_copies_on_request(data: Path, tmp_path: Path) -> None:
    for folder, options, links in (("linked", Options(), {2}), ("copied", COPY, {1})):
        back_up(data, FolderPlace(tmp_path / folder), options)
        assert {os.stat(path).st_nlink for path in (tmp_path / folder).glob("blocks/*/*")} == links
        for path in (tmp_path / "linked").glob("blocks/*/*"):
            path.unlink()  # or the store's files would have one more


def test_where_there_are_no_links_it_copies(data: Path, place: FolderPlace) -> None:
    with armed("fs.link", "exdev"):
        made = back_up(data, place)
    assert (made.linked, made.copied) == (0, made.size)


# ---- what fails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [Options(), COPY])
def test_a_damaged_block_is_named_and_no_backup(data: Path, place: FolderPlace, options: Options) -> None:
    file = min(data.glob("blocks/*/samples.parquet"))
    with pytest.raises(Corrupt, match=f"{file.parent.name}.*is damaged between bytes"):
        back_up(data, place, options, pinned=lambda: flip(file))
    assert backups(place) == []


@pytest.mark.parametrize("name", names.block_files(0))
@pytest.mark.parametrize("at", [0, 20, -1])
def test_every_byte_of_the_source_is_checked(data: Path, place: FolderPlace, name: str, at: int) -> None:
    file = min(data.glob(f"blocks/*/{name}"))
    with pytest.raises(Corrupt, match="is damaged"):
        back_up(data, place, COPY, pinned=lambda: flip(file, at))


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_source_that_is_cut_is_known(data: Path, place: FolderPlace, cut: int) -> None:
    file = min(data.glob("blocks/*/samples.parquet"))
    with pytest.raises(Corrupt, match=r"bytes where|damaged between"):
        back_up(data, place, COPY, pinned=lambda: file.write_bytes(file.read_bytes()[:-cut]))


def test_a_source_that_has_gone_is_known(data: Path, place: FolderPlace) -> None:
    for name in names.block_files(0):
        file = min(data.glob(f"blocks/*/{name}"))
        kept = file.read_bytes()
        for options in (Options(), COPY):
            with pytest.raises(BlockGone, match="is missing"):
                back_up(data, place, options, pinned=file.unlink)
            file.write_bytes(kept)


def test_a_full_destination_says_so_and_the_next_run_goes_on(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    with armed("backup.after_file", "enospc", 5), pytest.raises(ReadOnly, match="No space left"):
        back_up(data, place, COPY)
    assert backups(place) == []
    assert not list((tmp_path / "backups").rglob("*.tmp"))
    progress = Tally()
    made = back_up(data, place, COPY, progress)
    assert made.copied == progress.told["copied"] < made.size
    assert content(restored(place, tmp_path / "back")) == content(data)


def test_what_a_run_left_half_is_not_taken_for_whole(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    """Of the right size, and other bytes: as a power cut may leave a file that was never synced."""
    with armed("backup.before_manifest", "eio"), pytest.raises(StorageError):
        back_up(data, place, COPY)
    victim = next(iter((tmp_path / "backups").glob("blocks/*/samples.parquet")))
    flip(victim)
    made = back_up(data, place, COPY)
    assert made.copied == victim.stat().st_size
    assert content(restored(place, tmp_path / "back")) == content(data)


def test_a_block_that_vanished_from_the_destination_is_copied_again(
    data: Path, place: FolderPlace, tmp_path: Path
) -> None:
    back_up(data, place, COPY)
    victim = next(iter((tmp_path / "backups").glob("blocks/*/series.parquet")))
    victim.unlink()
    assert list(problems(place, backups(place), Tally())) == [
        f"there is no {victim.relative_to(tmp_path / 'backups').as_posix()} in {place.name}"
    ]
    assert back_up(data, place, COPY).copied == victim.stat().st_size
    assert list(problems(place, backups(place), Tally())) == []


def test_two_at_once_are_refused(data: Path, place: FolderPlace) -> None:
    with place.alone(), pytest.raises(FolderInUse, match="another process works on the backups in"), place.alone():
        pass


def test_a_place_with_other_things_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    for folder in (tmp_path / "photos", data):
        before = files_of(folder)
        with pytest.raises(StorageError, match="holds other things"):
            back_up(data, FolderPlace(folder))
        assert {path: raw for path, raw in files_of(folder).items() if path in before} == before


def test_a_first_backup_that_was_killed_at_its_first_file_can_be_made(data: Path, place: FolderPlace) -> None:
    (Path(place.name) / "backup.json.tmp").parent.mkdir()
    (Path(place.name) / "backup.json.tmp").write_text("{")
    assert back_up(data, place).blocks == 4


def test_a_place_of_a_later_layout_is_left_alone(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place)
    (tmp_path / "backups" / "backup.json").write_text('{"streamgauge backup": 2}')
    with pytest.raises(FormatTooNew):
        back_up(data, place)
    (tmp_path / "backups" / "backup.json").write_text("{}")
    with pytest.raises(Corrupt):
        back_up(data, place)


def test_no_server_takes_a_backup_for_its_data(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place)
    with pytest.raises(StorageError, match="holds backups"):
        refuse_foreign(tmp_path / "backups")
    with pytest.raises(NotFound, match="streamgauge restore"):
        require_data_folder(tmp_path / "backups")


# ---- damage in the destination --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names.block_files(0))
def test_a_flipped_bit_is_found_and_never_restored(data: Path, place: FolderPlace, tmp_path: Path, name: str) -> None:
    back_up(data, place, COPY)
    victim = sorted((tmp_path / "backups").glob(f"blocks/*/{name}"))[1]
    flip(victim)
    path = victim.relative_to(tmp_path / "backups").as_posix()
    (problem,) = problems(place, backups(place), Tally())
    assert problem.startswith(f"{path} in {place.name} is damaged: its checksum is ")
    with pytest.raises(Corrupt, match=f"{path} in .* is damaged, and nothing was restored"):
        restored(place, tmp_path / "back")
    assert sorted(os.listdir(tmp_path)) == ["backups", "data"]


def test_a_damaged_manifest_is_told_and_costs_no_other_backup(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place, COPY)
    back_up(data, place, COPY)
    first, second = backups(place)
    flip(tmp_path / "backups" / "backups" / f"{second}.json", 40)
    (problem,) = problems(place, backups(place), Tally())
    assert problem == f"backups/{second}.json in {place.name} is damaged: its checksum is wrong"
    with pytest.raises(Corrupt):
        restored(place, tmp_path / "back")
    assert content(restored(place, tmp_path / "back", first)) == content(data)
    before = files_of(tmp_path / "backups")
    with pytest.raises(Corrupt):
        prune(place, 1)
    assert files_of(tmp_path / "backups") == before, "who knows which blocks it needs"
    assert back_up(data, place, COPY).copied == 0


# ---- pruning --------------------------------------------------------------------------------------------------------


def test_old_backups_go_with_the_blocks_that_only_they_needed(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place, COPY)
    asyncio.run(compact_folder(data))
    grow(data, 5)
    made = back_up(data, place, COPY)
    stray = tmp_path / "backups" / "blocks" / "left-by-a-kill" / "samples.parquet"
    stray.parent.mkdir()
    stray.write_bytes(b"half")
    assert prune(place, 5).backups == 0
    pruned = prune(place, 1)
    assert (pruned.backups, backups(place)) == (1, [made.name])
    assert blocks_in(tmp_path / "backups") == blocks_in(data)
    assert list(problems(place, backups(place), Tally())) == []
    assert content(restored(place, tmp_path / "back")) == content(data)
    assert prune(place, 1) == Pruned(0, 0, 0)


def test_pruning_that_was_cut_short_goes_on_and_costs_nothing(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place, COPY)
    asyncio.run(compact_folder(data))
    back_up(data, place, COPY)
    with armed("backup.after_prune", "eio"), pytest.raises(StorageError):
        prune(place, 1)
    assert list(problems(place, backups(place), Tally())) == []
    assert prune(place, 1).backups == 0
    assert blocks_in(tmp_path / "backups") == blocks_in(data)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names_are_times_that_sort_and_are_free() -> None:
    assert backup_name(1_700_000_000_123, ()) == "20231114T221320.123Z"
    assert backup_name(1_700_000_000_999, ["20231114T221320.999Z"]) == "20231114T221321.000Z"


def test_a_backup_that_is_not_there_is_no_backup(data: Path, place: FolderPlace) -> None:
    with pytest.raises(NotFound, match="there is no backup in"):
        choose(place, None)
    back_up(data, place)
    for name in ("20231114T221320.123Z", "../../etc/passwd"):
        with pytest.raises(NotFound, match="restore --list"):
            choose(place, name)


# ---- restoring ------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_left_as_it_is(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place, COPY)
    (tmp_path / "file").write_text("here")
    for target in (data, tmp_path / "backups", tmp_path / "file"):
        before = files_of(tmp_path)
        with pytest.raises(StorageError, match=r"holds something already|is a file"):
            restored(place, target)
        assert files_of(tmp_path) == before


def test_a_link_is_refused_before_anything_is_copied(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with pytest.raises(StorageError, match="is a symbolic link"):
        restored(place, tmp_path / "link")
    assert sorted(os.listdir(tmp_path)) == ["backups", "data", "disk", "link"]


def test_a_file_without_end_does_not_fill_the_disk(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place, COPY)
    victim = min((tmp_path / "backups").glob("blocks/*/series.parquet"))
    victim.unlink()
    victim.symlink_to("/dev/zero")
    with pytest.raises(Corrupt, match="is damaged, and nothing was restored"):
        restored(place, tmp_path / "back")


def test_an_empty_folder_may_be_there(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place)
    (tmp_path / "empty").mkdir()
    assert content(restored(place, tmp_path / "empty")) == content(data)


@pytest.mark.parametrize("point", ["restore.after_block", "restore.before_rename", "fs.rename"])
def test_a_full_disk_leaves_nothing_and_the_next_attempt_succeeds(
    data: Path, place: FolderPlace, tmp_path: Path, point: str
) -> None:
    back_up(data, place)
    with armed(point, "enospc"), pytest.raises(StorageError):
        restored(place, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert content(restored(place, tmp_path / "back")) == content(data)
    assert sorted(os.listdir(tmp_path)) == ["back", "backups", "data"]


def test_two_to_one_folder_at_once_are_refused(data: Path, place: FolderPlace, tmp_path: Path) -> None:
    back_up(data, place)
    with alone(names.restore_draft(tmp_path / "back"), "restore to"), pytest.raises(FolderInUse):
        restored(place, tmp_path / "back")
