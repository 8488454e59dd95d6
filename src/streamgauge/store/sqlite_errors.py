"""What SQLite says, as errors of ours: the one place that knows its codes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from streamgauge.errors import Corrupt, ReadOnly, StorageError

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""With SQLITE_ERROR a statement does not fit the tables: ours are correct, so the tables are not."""
_UNREADABLE = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translate what SQLite raises within, while `doing` something, such as "change /data/catalog.sqlite"."""
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_error(error, doing) from error


def _storage_error(error: sqlite3.Error, doing: str) -> StorageError:
    what = f"cannot {doing}: {error}"
    code = getattr(error, "sqlite_errorcode", None)  # Python's own complaints, such as of text not UTF-8, have none
    if code is None or code in _UNREADABLE or code & 0xFF in _CORRUPT:
        return Corrupt(f"{what}. What is in the blocks and in the log is not affected")
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return ReadOnly(f"{what}. Nothing was changed; free some space, enlarge the disk or lower the retention")
    if primary == sqlite3.SQLITE_READONLY:
        return ReadOnly(f"{what}. Nothing was changed; make the data folder writable")
    if primary in _BUSY:
        return StorageError(f"{what}. Nothing was changed; another program holds the file, close it")
    return StorageError(f"{what}. Nothing was changed; check the disk and the kernel's log")
