"""How far a destination is: a small SQLite database in the data folder.

It says up to which commit everything is delivered, and of each stream which index comes next: a block may hold events
from both sides of that commit, and these are told apart by their indexes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streamgauge.errors import DeliveryFailed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS done (one INTEGER PRIMARY KEY CHECK (one = 1), through INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS streams (stream_id INTEGER PRIMARY KEY, next_index INTEGER NOT NULL);
INSERT OR IGNORE INTO done VALUES (1, 0);
"""


class Cursor:
    """Used by one thread at a time. Raises DeliveryFailed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._translated():
            file.parent.mkdir(exist_ok=True)
            self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        with self._translated():
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            ((self.through,),) = self._connection.execute("SELECT through FROM done")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DeliveryFailed(f"{self._file} cannot be used: {error}") from None

    def next_index(self, stream: int) -> int:
        """1 for a stream of which nothing is delivered."""
        with self._translated():
            row = self._connection.execute("SELECT next_index FROM streams WHERE stream_id = ?", [stream]).fetchone()
        return int(row[0]) if row else 1

    def advance(self, following: Mapping[int, int], through: int | None = None) -> None:
        """Note durably which index of which stream comes next, and up to which commit all is done."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?)", following.items())
            if through is not None:
                self._connection.execute("UPDATE done SET through = ?", [through])
            self._connection.execute("COMMIT")
        if through is not None:
            self.through = through

    def close(self) -> None:
        self._connection.close()
