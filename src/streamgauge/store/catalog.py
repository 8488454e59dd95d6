"""The catalog on local disk: one small SQLite file that says which blocks are live and what of the log they hold.

SQLite's rollback journal, not its write-ahead log: a folder that is read-only must open. SQLite keeps no checksum of
its pages, so the catalog keeps one of its rows: a catalog that lies is worse than one that is lost, since a lost one is
rebuilt from the blocks' footers.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from streamgauge.errors import Corrupt, FormatTooNew, StorageError
from streamgauge.store import catalog_rows, fs, names
from streamgauge.store.damage import Damage
from streamgauge.store.events.ports import NamedStream
from streamgauge.store.failpoints import hit
from streamgauge.store.ports import CatalogChange, CatalogState
from streamgauge.store.sqlite_errors import translated

Upgrade = Callable[[sqlite3.Connection], None]
"""Changes the tables of format n to those of n + 1, within a transaction."""

UPGRADES: Sequence[Upgrade] = (catalog_rows.add_tombstones, catalog_rows.add_events, catalog_rows.sum_rows)
"""UPGRADES[n - 1] leads from format n to n + 1."""

_BUSY_SECONDS = 10.0
"""How long a change waits for another program that is reading the file."""


_MAX_BYTES = 1 << 30
"""A catalog of a million blocks takes a third of it."""


class CatalogLost(Corrupt):
    """There is no catalog to open: none was ever made, or (`damage`) it could not be read and was set aside. The
    blocks' footers tell what is in the folder, and `SqliteCatalog.create` makes a catalog of it."""

    def __init__(self, message: str, damage: Damage | None) -> None:
        super().__init__(message)
        self.damage = damage


class SqliteCatalog:
    """Implements `ports.Catalog`. May be used from any thread, one at a time."""

    def __init__(self, data: Path, state: CatalogState, connection: sqlite3.Connection | None) -> None:
        """Use `open` or `create`."""
        self._data = data
        self._writable = connection is not None
        self._using = threading.Lock()  # guards what follows
        self._state = replace(state, events=replace(state.events, named=()))  # what is on disk, but for
        self._named = {each.stream.name: each for each in state.events.named}  # those; a change touches few of many
        self._connection = connection  # None when reading, and after a failure until the next change

    @staticmethod
    def open(data: Path, *, writable: bool = True, upgrades: Sequence[Upgrade] = UPGRADES) -> SqliteCatalog:
        """Open the catalog of a data folder and check it whole.

        Without `writable` nothing in the folder is changed, and it may lie on a read-only file system. Raises
        CatalogLost, FormatTooNew and StorageError.
        """
        path = names.catalog_file(data)
        if not path.exists():
            raise CatalogLost(f"there is no {path}", None)
        try:
            with translated(f"open {path}"):
                return _open_writable(data, upgrades) if writable else _open_reading(data, upgrades)
        except Corrupt as error:
            damage = fs.set_aside(path, data, error.message) if writable else Damage(str(path), error.message)
            raise CatalogLost(damage.what, damage) from error

    @staticmethod
    def create(data: Path, state: CatalogState) -> SqliteCatalog:
        """Make the catalog of a folder that has none, holding `state`; it appears whole or not at all.

        For a new folder, and for one whose catalog was lost. Raises StorageError.
        """
        path, draft = names.catalog_file(data), names.catalog_draft(data)
        fs.make_dir(data)
        fs.remove_file(draft)
        fs.remove_file(names.journal_of(draft))
        with translated(f"create {draft}"), closing(_connect(draft, "rwc")) as connection, _transaction(connection):
            catalog_rows.create(connection, state, 1 + len(UPGRADES))
        _set_journal_aside(data)
        hit("catalog.create.before_rename")
        fs.replace(draft, path)
        hit("catalog.create.after_rename")
        return SqliteCatalog.open(data)

    def load(self) -> CatalogState:
        """What the catalog holds."""
        with self._using:
            return self._with_named(self._state, self._named)

    def apply(self, change: CatalogChange) -> None:
        """See `ports.Catalog`. Raises ReadOnly and StorageError.

        After an error the files that the change names must stay: only the next `open` tells for certain which of them
        are live.
        """
        assert self._writable, "the catalog is open for reading"
        with self._using:
            after = catalog_rows.changed(self._state, change)
            try:
                self._commit(change)
            except StorageError:
                if not self._took_effect(after, change):
                    raise
            self._state = after
            catalog_rows.change_named(self._named, change.events)

    def close(self) -> None:
        with self._using:
            self._disconnect()

    def _commit(self, change: CatalogChange) -> None:
        path = names.catalog_file(self._data)
        hit("catalog.apply.before_begin")
        with translated(f"change {path}"):
            if self._connection is None:
                self._connection = _connect(path, "rw")
            with _transaction(self._connection):
                catalog_rows.write(self._connection, change)
                hit("catalog.apply.before_commit")
        hit("catalog.apply.after_commit")

    @staticmethod
    def _with_named(state: CatalogState, named: dict[str, NamedStream]) -> CatalogState:
        return replace(state, events=replace(state.events, named=tuple(named[name] for name in sorted(named))))

    def _took_effect(self, after: CatalogState, change: CatalogChange) -> bool:
        """After an error: is the change on disk nevertheless? The connection may be in any state, so a new one looks,
        which also rolls back what was left half done."""
        self._disconnect()
        path = names.catalog_file(self._data)
        try:
            with translated(f"read {path}"):
                self._connection = _connect(path, "rw")
                found = catalog_rows.read(self._connection)
            named = dict(self._named)
            catalog_rows.change_named(named, change.events)
            if found != self._with_named(after, named):
                return False
            fs.sync_dir(self._data)  # the removal of the journal is the commit: make it durable
        except StorageError:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _open_writable(data: Path, upgrades: Sequence[Upgrade]) -> SqliteCatalog:
    path = names.catalog_file(data)
    with ExitStack() as undo:
        connection = undo.enter_context(closing(_connect(path, "rw")))
        version = _check(connection, path, upgrades)
        if version <= len(upgrades):
            content, _ = fs.read_file(path, _MAX_BYTES)
            fs.write_atomically(names.catalog_copy(data, version), content)
            hit("catalog.upgrade.after_copy")
            _upgrade(connection, version, upgrades)
        catalog = SqliteCatalog(data, catalog_rows.read(connection), connection)
        undo.pop_all()
        return catalog


def _open_reading(data: Path, upgrades: Sequence[Upgrade]) -> SqliteCatalog:
    """By way of a copy in memory, where a change that a crash left half done can be rolled back, and an older format
    be upgraded."""
    path = names.catalog_file(data)
    with closing(_connect_memory()) as memory:
        with _readable(path) as disk:
            disk.backup(memory)
        _upgrade(memory, _check(memory, path, upgrades), upgrades)
        return SqliteCatalog(data, catalog_rows.read(memory), None)


@contextmanager
def _readable(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing in the folder of `path`."""
    journal = names.journal_of(path)
    if not journal.exists():
        with closing(_connect(path, "ro&immutable=1")) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory(prefix="streamgauge-") as folder:
        copy = Path(folder) / path.name
        with fs.disk_errors(f"copy {path} to {folder}"):
            shutil.copyfile(path, copy)
            shutil.copyfile(journal, names.journal_of(copy))
        with closing(_connect(copy, "rw")) as connection:
            yield connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    # FULL does not sync the folder after the journal is removed, so a power cut could undo a change by which the log
    # was trimmed. fullfsync is for the drive's cache on macOS, and without effect elsewhere.
    # A new catalog gets small pages: six tables of a few rows each would take 28 KiB with SQLite's own.
    connection.executescript(
        "PRAGMA page_size = 1024; PRAGMA synchronous = EXTRA; PRAGMA fullfsync = ON; PRAGMA trusted_schema = OFF"
    )
    return connection


def _connect_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection, path: Path, upgrades: Sequence[Upgrade]) -> int:
    known = 1 + len(upgrades)
    version = catalog_rows.check(connection, known)
    if version > known:
        raise FormatTooNew(
            f"{path} is of format {version} and this streamgauge knows formats up to {known}; start the newer one. "
            "Nothing was changed"
        )
    return version


def _upgrade(connection: sqlite3.Connection, version: int, upgrades: Sequence[Upgrade]) -> None:
    if version > len(upgrades):
        return
    with _transaction(connection):
        for step in upgrades[version - 1 :]:
            step(connection)
        catalog_rows.set_format(connection, 1 + len(upgrades))


def _set_journal_aside(data: Path) -> None:
    """A journal that a lost catalog has left behind: SQLite would play it back into the new one."""
    journal = names.journal_of(names.catalog_file(data))
    if journal.exists():
        damage = fs.set_aside(journal, data, f"{journal.name} belongs to a catalog that is lost")
        if journal.exists():
            raise StorageError(f"cannot make a catalog: {damage.what}")
