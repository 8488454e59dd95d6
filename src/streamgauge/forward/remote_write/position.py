"""How far a destination of samples is: a small SQLite database in the data folder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamgauge.errors import DeliveryFailed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    through INTEGER NOT NULL,
    done TEXT NOT NULL,
    piece TEXT NOT NULL,
    rows INTEGER NOT NULL
);
"""


class Position:
    """Everything up to the commit `through` is sent; of what is later, the blocks `done`, and of the block `piece` the
    first `rows` rows.

    `open` and `save` are called on one thread at a time, while nobody changes it. They raise DeliveryFailed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self.through = 0
        self.done: frozenset[str] = frozenset()
        self.piece = ""
        self.rows = 0

    def open(self, start: int) -> bool:
        """Read it. One that is new is at the commit `start`, which is noted; so says the answer."""
        with self._translated():
            self._file.parent.mkdir(exist_ok=True)
            connection = self._connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            row = connection.execute("SELECT through, done, piece, rows FROM position").fetchone()
        if row is None:
            self.through = start
            self.save()
            return True
        self.through, self.piece, self.rows = int(row[0]), str(row[2]), int(row[3])
        self.done = frozenset(json.loads(row[1]))
        return False

    def save(self) -> None:
        """Note it durably."""
        assert self._connection is not None
        with self._translated():
            self._connection.execute(
                "INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?)",
                [self.through, json.dumps(sorted(self.done)), self.piece, self.rows],
            )

    def close(self) -> None:
        """Note it, if it was opened."""
        if self._connection is not None:
            connection = self._connection
            try:
                self.save()
            finally:
                self._connection = None
                connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise DeliveryFailed(f"{self._file} cannot be used: {error}") from None
