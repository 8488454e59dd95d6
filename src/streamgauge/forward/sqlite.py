"""Events into a SQLite file with the reference server's schema: headers and payload are JSONB, times text in UTC."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from streamgauge.errors import BadInput, DeliveryFailed
from streamgauge.forward.destination import Event, SqliteTarget
from streamgauge.model.events import Stream
from streamgauge.wire.jsonb import jsonb_of

BUSY_SECONDS = 10
"""For which another program may hold the file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    stream_id INTEGER PRIMARY KEY NOT NULL,
    headers BLOB,
    start_datetime TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    insert_datetime TEXT,
    payload BLOB,
    stream_id INTEGER REFERENCES streams (stream_id)
) STRICT;
PRAGMA user_version = 1;
"""


class SqliteOutlet:
    """Implements Outlet: what is given to `write` is one transaction."""

    def __init__(self, target: SqliteTarget) -> None:
        self._file = target.file
        with self._translated():
            self._connection = sqlite3.connect(
                target.file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._connection.execute("PRAGMA foreign_keys = ON")
                ((version,),) = self._connection.execute("PRAGMA user_version")
                if version == 0:
                    self._connection.executescript(_SCHEMA)
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DeliveryFailed(f"{self._file} cannot be written: {error}") from None

    def write(self, streams: Sequence[Stream], events: Sequence[Event]) -> int:
        rows = [(moment(event.received), blob, event.stream) for event in events if (blob := _blob(event.payload))]
        known = [(stream.id, _blob(stream.headers), moment(stream.started)) for stream in streams]
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO streams (stream_id, headers, start_datetime) VALUES (?, ?, ?)", known
                )
                self._connection.executemany(
                    "INSERT INTO events (insert_datetime, payload, stream_id) VALUES (?, ?, ?)", rows
                )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        return len(events) - len(rows)

    def close(self) -> None:
        self._connection.close()


def _blob(text: str) -> bytes | None:
    """None for what is nested deeper than SQLite reads."""
    try:
        return jsonb_of(text)
    except BadInput:
        return None


def moment(time: int) -> str:
    """ns as SQLite's datetime() has it."""
    return datetime.fromtimestamp(time // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
