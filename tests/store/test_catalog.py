"""The catalog changes whole or not at all, and one that cannot be trusted is never used."""

import itertools
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import streamgauge
from streamgauge.errors import FormatTooNew, ReadOnly, StorageError
from streamgauge.model.events import Stream
from streamgauge.store import failpoints, names
from streamgauge.store.catalog import UPGRADES, CatalogLost, SqliteCatalog
from streamgauge.store.events.ports import EventBlockMeta, EventCatalog, EventChange, NamedStream
from streamgauge.store.failpoints import armed
from streamgauge.store.ports import BlockMeta, CatalogChange, CatalogState, Tombstone
from streamgauge.testing.thorough import examples

FIXTURES = Path(__file__).parents[1] / "fixtures"
STORE = "000102030405060708090a0b0c0d0e0f"
EMPTY = CatalogState(STORE, 0, 0)


def block(number: int, **changes: object) -> BlockMeta:
    meta = BlockMeta(
        id=f"block-{number:04}",
        first_commit=number,
        last_commit=number + 9,
        min_time=-(1 << 62) + number,
        max_time=(1 << 62) + number,
        window=-1,
        late=number % 2 == 1,
        level=number % 3,
        series=number * 10,
        samples=number * 1000,
        bytes=number * 16_000,
        parents=tuple(f"block-{parent:04}" for parent in range(number % 3)),
        tombstones=tuple(range(number % 4)),
        resolution=300_000 * (number % 2),
    )
    return replace(meta, **changes)


def tombstone(number: int) -> Tombstone:
    return Tombstone(number, number + 9, -(1 << 63), (1 << 63) - 1 - number, bytes(range(4 * number)))


def event_block(number: int) -> EventBlockMeta:
    return EventBlockMeta(
        id=f"event-{number:04}",
        first_commit=number,
        last_commit=number + 9,
        min_time=-(1 << 62) + number,
        max_time=(1 << 62) + number,
        min_stream=number,
        max_stream=(1 << 62) + number,
        level=number % 3,
        events=number * 1000,
        streams=number,
        bytes=number * 16_000,
        parents=tuple(f"event-{parent:04}" for parent in range(number % 3)),
        pruned=tuple(f"rule {rule}" for rule in range(number % 2)),
    )


def named_stream(number: int) -> NamedStream:
    stream = Stream(number, 1 << 60, "http", '{"ä":"b"}', f"näme {number}")
    return NamedStream(stream, number * 7, (1 << 60) + number)


FULL = CatalogState(
    STORE,
    99,
    1000,
    tuple(map(block, range(1, 5))),
    (("né", "gauge", "what\nit is", "bytes"), ("up", "", "", "")),
    (tombstone(1), tombstone(2)),
    events=EventCatalog(98, 17, (event_block(1), event_block(2)), (named_stream(1), named_stream(2)), 5),
)
FULL_V2 = replace(FULL, events=EventCatalog(99))
FULL_V1 = replace(
    FULL_V2, blocks=tuple(replace(meta, tombstones=(), resolution=0) for meta in FULL.blocks), tombstones=()
)
AGAIN = replace(named_stream(2), next_index=700)
CHANGE = CatalogChange(
    add=[block(7), block(8)],
    remove=["block-0001", "none"],
    flushed_through=120,
    metadata=[("up", "gauge", "h", "")],
    add_tombstones=[tombstone(3)],
    remove_tombstones=[1, 9],
    dropped_before=1234,
    events=EventChange(
        [event_block(3)], ["event-0002", "none"], 119, 20, [AGAIN, named_stream(3)], 4321, ["näme 1", "none"]
    ),
)
CHANGED = CatalogState(
    STORE,
    120,
    1000,
    (block(2), block(3), block(4), block(7), block(8)),
    (("né", "gauge", "what\nit is", "bytes"), ("up", "gauge", "h", "")),
    (tombstone(2), tombstone(3)),
    dropped_before=1234,
    events=EventCatalog(119, 20, (event_block(1), event_block(3)), (AGAIN, named_stream(3)), 4321),
)


def make(data: Path, state: CatalogState = FULL) -> None:
    SqliteCatalog.create(data, state).close()


def load(data: Path, writable: bool = True) -> CatalogState:
    catalog = SqliteCatalog.open(data, writable=writable)
    try:
        return catalog.load()
    finally:
        catalog.close()


def content_of(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


# ---- what it is for -----------------------------------------------------------------------------------------------


def test_a_folder_without_catalog_gets_one(tmp_path: Path) -> None:
    for writable in (True, False):
        with pytest.raises(CatalogLost) as lost:
            SqliteCatalog.open(tmp_path, writable=writable)
        assert lost.value.damage is None
    assert SqliteCatalog.create(tmp_path, EMPTY).load() == EMPTY
    assert load(tmp_path) == EMPTY
    assert os.listdir(tmp_path) == [names.CATALOG]


def test_a_rebuilt_catalog_holds_what_it_was_given(tmp_path: Path) -> None:
    make(tmp_path)
    assert load(tmp_path) == FULL
    assert load(tmp_path, writable=False) == FULL


def test_a_change_is_there_at_once_and_after_a_restart(tmp_path: Path) -> None:
    catalog = SqliteCatalog.create(tmp_path, FULL)
    catalog.apply(CHANGE)
    assert catalog.load() == CHANGED
    catalog.apply(CatalogChange())
    catalog.close()
    assert load(tmp_path) == CHANGED
    assert load(tmp_path, writable=False) == CHANGED


def test_what_retention_has_dropped_is_never_younger_than_it_was(tmp_path: Path) -> None:
    catalog = SqliteCatalog.create(tmp_path, CHANGED)
    for before, kept in ((-5, 1234), (5000, 5000), (1234, 5000)):
        catalog.apply(CatalogChange(dropped_before=before))
        assert catalog.load().dropped_before == kept
    catalog.close()
    assert load(tmp_path).dropped_before == 5000


def test_it_may_be_used_from_another_thread(tmp_path: Path) -> None:
    catalog = SqliteCatalog.create(tmp_path, FULL)
    thread = threading.Thread(target=catalog.apply, args=(CHANGE,))
    thread.start()
    thread.join()
    assert catalog.load() == CHANGED
    catalog.close()


def test_the_document_shows_the_tables_as_they_are(tmp_path: Path) -> None:
    make(tmp_path)
    document = (Path(__file__).parents[2] / "docs" / "format" / "catalog.md").read_text()
    shown = document.split("```sql\n")[1].split("```")[0]
    plain = re.sub(r"\s+", " ", re.sub(r"--.*", "", shown))
    with closing(sqlite3.connect(names.catalog_file(tmp_path))) as connection:
        tables = connection.execute("SELECT sql FROM sqlite_master").fetchall()
        keys = {row[0] for row in connection.execute("SELECT key FROM meta")}
    assert {re.sub(r"\s+", " ", sql) for (sql,) in tables} == {sql.strip() for sql in plain.split(";") if sql.strip()}
    assert keys == set(re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE))


# ---- formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", sorted(FIXTURES.glob("catalog-v*.sqlite")), ids=lambda path: path.stem)
@pytest.mark.parametrize("writable", [True, False])
def test_a_catalog_of_each_released_format_opens(tmp_path: Path, fixture: Path, writable: bool) -> None:
    shutil.copy(fixture, names.catalog_file(tmp_path))
    assert (
        load(tmp_path, writable)
        == {"catalog-v1": FULL_V1, "catalog-v2": FULL_V2, "catalog-v3": FULL, "catalog-v4": FULL}[fixture.stem]
    )


def test_there_is_a_fixture_of_the_current_format(tmp_path: Path) -> None:
    make(tmp_path)
    with closing(sqlite3.connect(names.catalog_file(tmp_path))) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    with closing(sqlite3.connect(FIXTURES / f"catalog-v{version}.sqlite")) as connection:
        assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == tables


@pytest.mark.parametrize("writable", [True, False])
def test_a_later_format_is_refused_and_left_alone(tmp_path: Path, writable: bool) -> None:
    make(tmp_path)
    SqliteCatalog.open(tmp_path, upgrades=[*UPGRADES, add_tenants]).close()
    with closing(sqlite3.connect(names.catalog_file(tmp_path))) as connection, connection:
        connection.execute("UPDATE meta SET value = 'of another kind' WHERE key = 'checksum'")
    before = content_of(tmp_path)
    with pytest.raises(FormatTooNew, match="is of format 5 and this streamgauge knows formats up to 4"):
        SqliteCatalog.open(tmp_path, writable=writable)
    assert content_of(tmp_path) == before


def add_tenants(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE tenants (name TEXT PRIMARY KEY)")


def test_an_earlier_format_is_upgraded_after_a_copy(tmp_path: Path) -> None:
    make(tmp_path)
    before = names.catalog_file(tmp_path).read_bytes()
    for point in ("catalog.upgrade.after_copy", "fs.write", "fs.sync", "fs.rename"):
        with armed(point, "enospc"), pytest.raises(StorageError):
            SqliteCatalog.open(tmp_path, upgrades=[*UPGRADES, add_tenants])
        assert names.catalog_file(tmp_path).read_bytes() == before
    reading = SqliteCatalog.open(tmp_path, writable=False, upgrades=[*UPGRADES, add_tenants])
    assert reading.load() == FULL
    assert names.catalog_file(tmp_path).read_bytes() == before
    for _ in range(2):
        upgraded = SqliteCatalog.open(tmp_path, upgrades=[*UPGRADES, add_tenants])
        assert upgraded.load() == FULL
        upgraded.close()
        assert names.catalog_copy(tmp_path, 4).read_bytes() == before
    assert load_copy(names.catalog_copy(tmp_path, 4), tmp_path / "old") == FULL


def load_copy(copy: Path, data: Path) -> CatalogState:
    data.mkdir()
    shutil.copy(copy, names.catalog_file(data))
    return load(data)


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path)

    def fail(connection: sqlite3.Connection) -> None:
        add_tenants(connection)
        connection.execute("INSERT INTO meta VALUES ('format', NULL)")

    with pytest.raises(StorageError, match="NOT NULL"):
        SqliteCatalog.open(tmp_path, upgrades=[*UPGRADES, fail])
    assert load(tmp_path) == FULL


# ---- damage -------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_is_harmless_or_the_catalog_is_lost(tmp_path: Path) -> None:
    """Bytes all over the file, each flipped alone: never a wrong state, never another error."""
    make(tmp_path)
    path = names.catalog_file(tmp_path)
    whole = path.read_bytes()
    lost = 0
    used = [at for at in range(len(whole)) if whole[at] or at < 200]
    for at in used[::5]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            assert load(tmp_path, writable=False) == FULL, at
        except CatalogLost:
            lost += 1
    assert lost > len(used) / 10


def test_a_change_does_not_make_good_what_was_damaged_before(tmp_path: Path) -> None:
    """The checksum is brought up to date by what changes, not computed from what is found."""
    catalog = SqliteCatalog.create(tmp_path, FULL)
    with closing(sqlite3.connect(names.catalog_file(tmp_path))) as connection, connection:
        connection.execute("UPDATE named_streams SET next_index = 8 WHERE name = 'n\u00e4me 1'")
    catalog.apply(replace(CHANGE, events=replace(CHANGE.events, forget=[])))
    catalog.close()
    with pytest.raises(CatalogLost, match="do not match their checksum"):
        load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not a database at all" * 100,
        lambda content: content[: len(content) // 2],
        lambda content: content[:5000],
        lambda content: content[:4096] + bytes(len(content) - 4096),
        lambda content: content.replace(b"block-0002", b"block-0009"),
        lambda content: content.replace(b"flushed_through", b"flushed_thro\0gh"),
        lambda content: content.replace(b"CREATE TABLE blocks", b"CREATE TABLE blecks"),
    ],
)
def test_a_damaged_catalog_is_set_aside_and_made_anew(tmp_path: Path, damage: object) -> None:
    make(tmp_path)
    path = names.catalog_file(tmp_path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(CatalogLost) as lost:
        SqliteCatalog.open(tmp_path, writable=False)
    assert lost.value.damage is not None
    assert content_of(tmp_path) == {names.CATALOG: damaged}
    with pytest.raises(CatalogLost) as lost:
        SqliteCatalog.open(tmp_path)
    assert lost.value.damage is not None
    assert (names.set_aside_dir(tmp_path) / names.CATALOG).read_bytes() == damaged
    make(tmp_path, CHANGED)
    assert load(tmp_path) == CHANGED


def test_the_journal_of_a_lost_catalog_is_not_played_into_the_new_one(tmp_path: Path) -> None:
    journal = interrupted(tmp_path)
    names.catalog_file(tmp_path).unlink()
    make(tmp_path, CHANGED)
    assert load(tmp_path) == CHANGED
    assert (names.set_aside_dir(tmp_path) / journal.name).exists()


# ---- the disk fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["catalog.apply.before_begin", "catalog.apply.before_commit"])
@pytest.mark.parametrize(("error", "kind"), [("enospc", ReadOnly), ("eio", StorageError)])
def test_a_failed_change_changes_nothing_and_can_be_repeated(
    tmp_path: Path, point: str, error: str, kind: type[StorageError]
) -> None:
    catalog = SqliteCatalog.create(tmp_path, FULL)
    with armed(point, error), pytest.raises(kind):
        catalog.apply(CHANGE)
    assert catalog.load() == FULL == load(tmp_path, writable=False)
    catalog.apply(CHANGE)
    assert catalog.load() == CHANGED == load(tmp_path, writable=False)
    catalog.close()


def test_an_error_after_the_commit_is_no_failure(tmp_path: Path) -> None:
    catalog = SqliteCatalog.create(tmp_path, FULL)
    with armed("catalog.apply.after_commit", "eio"):
        catalog.apply(CHANGE)
    assert catalog.load() == CHANGED == load(tmp_path)
    catalog.close()


@pytest.mark.parametrize("point", ["catalog.create.before_rename", "fs.rename", "fs.remove"])
def test_a_catalog_that_could_not_be_made_is_not_there(tmp_path: Path, point: str) -> None:
    with armed(point, "enospc"), pytest.raises(StorageError):
        SqliteCatalog.create(tmp_path, FULL)
    with pytest.raises(CatalogLost) as lost:
        SqliteCatalog.open(tmp_path)
    assert lost.value.damage is None
    make(tmp_path)
    assert load(tmp_path) == FULL


def test_another_program_that_reads_is_waited_for(tmp_path: Path) -> None:
    catalog = SqliteCatalog.create(tmp_path, FULL)
    other = sqlite3.connect(names.catalog_file(tmp_path), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN")
    other.execute("SELECT * FROM blocks").fetchall()
    changing = threading.Thread(target=catalog.apply, args=(CHANGE,))
    with armed("catalog.apply.before_commit", other.close):
        changing.start()
        changing.join()
    assert load(tmp_path) == CHANGED
    catalog.close()


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


def test_a_full_disk_changes_nothing_and_recovers_by_itself(small_disk: Path) -> None:
    catalog = SqliteCatalog.create(small_disk, FULL)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.writelines(itertools.repeat(bytes(4096), 100))
    with pytest.raises(StorageError):
        catalog.apply(CHANGE)
    assert catalog.load() == FULL == load(small_disk, writable=False)
    ballast.unlink()
    catalog.apply(CHANGE)
    catalog.close()
    assert load(small_disk) == CHANGED


def test_a_read_only_file_system_can_be_read(small_disk: Path) -> None:
    make(small_disk)
    interrupted_copy = small_disk / "interrupted"
    interrupted_copy.mkdir()
    interrupted(interrupted_copy)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert load(small_disk, writable=False) == FULL
    assert load(interrupted_copy, writable=False) == FULL
    catalog = SqliteCatalog.open(small_disk)
    with pytest.raises(ReadOnly):
        catalog.apply(CHANGE)
    catalog.close()


# ---- the machine stops --------------------------------------------------------------------------------------------


def interrupted(data: Path) -> Path:
    """Leave a change half done: pages of it in the file, and the journal that undoes them. Returns the journal."""
    make(data)
    path = names.catalog_file(data)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
        connection.execute("BEGIN")
        connection.execute("UPDATE blocks SET samples = 0")
        rows = [(f"metric-{n}", "", "h" * 500, "") for n in range(100)]
        connection.executemany("INSERT INTO metadata VALUES (?, ?, ?, ?)", rows)
        half_done = {file.name: file.read_bytes() for file in data.iterdir() if file.is_file()}
    for name, content in half_done.items():
        (data / name).write_bytes(content)
    assert names.journal_of(path).stat().st_size > 0
    return names.journal_of(path)


@pytest.mark.parametrize("writable", [True, False])
def test_a_change_that_was_interrupted_is_undone(tmp_path: Path, writable: bool) -> None:
    interrupted(tmp_path)
    before = content_of(tmp_path)
    assert load(tmp_path, writable) == FULL
    assert (content_of(tmp_path) == before) != writable


CHILD = """
import sys
from pathlib import Path
from streamgauge.store import failpoints
from streamgauge.store.catalog import UPGRADES, CatalogLost, SqliteCatalog
from streamgauge.store.ports import CatalogChange, CatalogState

failpoints.arm_from_environment()
data = Path(sys.argv[1])
try:
    catalog = SqliteCatalog.open(data)
except CatalogLost:
    catalog = SqliteCatalog.create(data, CatalogState("00" * 16, 0, 0))
while True:
    following = catalog.load().flushed_through + 1
    rows = [(f"metric-{n}", "gauge", str(following), "") for n in range(50)]
    catalog.apply(CatalogChange(flushed_through=following, metadata=rows))
    print(following, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is what is tested")
@pytest.mark.parametrize(
    "point", [name for name in failpoints.FAILPOINTS if name.startswith("catalog.") and "upgrade" not in name]
)
def test_kill_9_leaves_the_last_change_or_the_one_before(tmp_path: Path, point: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(streamgauge.__file__).parents[1]),
            "STREAMGAUGE_FAILPOINTS": f"{point}=kill{'' if 'create' in point else '@4'}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -9, child.stderr
    acknowledged = int(child.stdout.split()[-1]) if child.stdout else 0
    if point == "catalog.create.before_rename":
        with pytest.raises(CatalogLost) as lost:
            SqliteCatalog.open(tmp_path)
        assert lost.value.damage is None
        return
    state = load(tmp_path)
    assert state.flushed_through - acknowledged == (point == "catalog.apply.after_commit")
    assert {row[2] for row in state.metadata} <= {str(state.flushed_through)}


# ---- everything together ------------------------------------------------------------------------------------------


class CatalogModel(RuleBasedStateMachine):
    """Changes, failures and restarts in any order, compared with dictionaries."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.data = Path(self.folder.name)
        self.blocks: dict[str, BlockMeta] = {}
        self.metadata: dict[str, tuple[str, str, str, str]] = {}
        self.flushed = 0
        self.catalog = SqliteCatalog.create(self.data, EMPTY)

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            self.folder.cleanup()

    @rule(
        add=st.lists(st.integers(0, 20), max_size=3),
        remove=st.lists(st.integers(0, 20), max_size=3),
        flushed=st.none() | st.integers(0, 1 << 62),
        texts=st.lists(st.tuples(st.text(max_size=3), st.text(), st.text(), st.text()), max_size=2),
        failure=st.sampled_from(["", "before_begin", "before_commit", "after_commit"]),
    )
    def apply(
        self,
        add: list[int],
        remove: list[int],
        flushed: int | None,
        texts: list[tuple[str, str, str, str]],
        failure: str,
    ) -> None:
        change = CatalogChange(
            [block(number) for number in add], [block(number).id for number in remove], flushed, None, texts
        )
        if failure:
            with armed(f"catalog.apply.{failure}", "eio"):
                try:
                    self.catalog.apply(change)
                except StorageError:
                    return
        else:
            self.catalog.apply(change)
        for number in remove:
            self.blocks.pop(block(number).id, None)
        self.blocks.update((block(number).id, block(number)) for number in add)
        self.metadata.update((row[0], row) for row in texts)
        self.flushed = max(self.flushed, flushed or 0)  # it never goes back

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = SqliteCatalog.open(self.data)
        assert self.catalog.load() == CatalogState(
            STORE,
            self.flushed,
            0,
            tuple(self.blocks[key] for key in sorted(self.blocks)),
            tuple(self.metadata[key] for key in sorted(self.metadata)),
        )


CatalogModel.TestCase.settings = settings(max_examples=examples(20), stateful_step_count=15, deadline=None)
TestCatalogModel = CatalogModel.TestCase
