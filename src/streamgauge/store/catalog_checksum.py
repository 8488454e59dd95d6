"""The catalog's checksum: a sum over its rows, so that a change costs what it changes and not what there is."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from streamgauge.errors import Corrupt

SUMMED_FROM = 4
"""The first format with a sum. Before, one digest was over all rows in order."""

_KEY = "checksum"
_MODULUS = 1 << 256


def checksum_of(connection: sqlite3.Connection, version: int) -> str:
    """Of every row of every table but the checksum's own, as a catalog of this format has it."""
    if version >= SUMMED_FROM:
        return _spelt(sum(_number(line) for line in _lines(connection)))
    digest = hashlib.sha256()
    for line in _lines(connection):
        digest.update(line)
        digest.update(b"\n")
    return digest.hexdigest()


def stored_checksum(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
    return None if row is None else str(row[0])


def store_checksum(connection: sqlite3.Connection, checksum: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_KEY, checksum))


class RunningChecksum:
    """Follows what changes within one transaction. What was damaged before stays so. Raises Corrupt where there is no
    checksum."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        stored = stored_checksum(connection)
        try:
            self._sum = int(stored or "", 16)
        except ValueError:
            raise Corrupt(f"the catalog is damaged: its checksum is {stored!r}") from None

    @contextmanager
    def changing(self, table: str, key: str, keys: Collection[str | int]) -> Iterator[None]:
        """Rows of a table with these keys may be changed within the `with`, put in or taken out; no others."""
        rows = sorted(set(keys), key=repr)
        before = self._sum_of(table, key, rows)
        yield
        self._sum += self._sum_of(table, key, rows) - before

    def store(self) -> None:
        store_checksum(self._connection, _spelt(self._sum))

    def _sum_of(self, table: str, key: str, keys: Sequence[str | int]) -> int:
        wanted = f'SELECT * FROM "{table}" WHERE {key} = ?'
        found = (self._connection.execute(wanted, (each,)).fetchone() for each in keys)
        return sum(_number(_line(table, row)) for row in found if row is not None)


def _lines(connection: sqlite3.Connection) -> Iterator[bytes]:
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    for table in tables:
        for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY 1'):
            if row[0] != _KEY or table != "meta":
                yield _line(table, row)


def _line(table: str, row: Sequence[Any]) -> bytes:
    return json.dumps([table, *row], default=_digest_of).encode()


def _digest_of(blob: bytes) -> str:
    """Spelt out as text, a million series ids would hold up every thread for a quarter of a second."""
    return hashlib.sha256(blob).hexdigest()


def _number(line: bytes) -> int:
    return int.from_bytes(hashlib.sha256(line).digest())


def _spelt(total: int) -> str:
    return f"{total % _MODULUS:064x}"
