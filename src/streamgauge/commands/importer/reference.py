"""A file of events as the reference server of event streams writes it with SQLite: tables `streams` and `events`.

Its payloads and headers are JSONB, which SQLite has since 3.45 and is read here without it, or text.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from streamgauge.errors import BadInput, NotFound
from streamgauge.wire.jsonb import json_of

MAGIC = b"SQLite format 3\0"
CHUNK_EVENTS = 4096
CHUNK_BYTES = 4 << 20
"""Of payloads that are read and sent before it is noted that they are."""

_COLUMNS = {
    "streams": {"stream_id", "headers", "start_datetime"},
    "events": {"insert_datetime", "payload", "stream_id"},
}


@dataclass(frozen=True, slots=True)
class ReferenceStream:
    """started: as it stands in the file, "" where it does not. headers: as JSON has them."""

    id: int | None
    started: str
    headers: Any


@dataclass(frozen=True, slots=True)
class ReferenceEvent:
    inserted: str  # as it stands in the file
    payload: str  # JSON


@dataclass(slots=True)
class Chunk:
    """Events that follow each other in the file, by stream."""

    last: int = 0  # rowid
    events: dict[int | None, list[ReferenceEvent]] = field(default_factory=dict)


class ReferenceFile:
    """Raises NotFound, and BadInput for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise NotFound(f"there is no file {path}")
        self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            self._check()
        except BaseException:
            self._connection.close()
            raise

    def _check(self) -> None:
        for table, columns in _COLUMNS.items():
            found = {row[1] for row in self._rows(f"PRAGMA table_info({table})")}
            if missing := sorted(columns - found):
                raise BadInput(
                    f"{self._path} is no file of events: it has no {table}.{missing[0]}; what is imported are "
                    "streams(stream_id, headers, start_datetime) and events(insert_datetime, payload, stream_id)"
                )

    def _rows(self, query: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(self._connection.cursor()) as cursor:
                yield from cursor.execute(query, parameters)
        except sqlite3.Error as error:
            raise BadInput(f"{self._path} cannot be read: {error}") from None

    def __enter__(self) -> ReferenceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def streams(self) -> dict[int | None, ReferenceStream]:
        """All that are in a table, those too that only events name."""
        found = {
            number: ReferenceStream(number, str(started or ""), _headers(headers))
            for number, headers, started in self._rows("SELECT stream_id, headers, start_datetime FROM streams")
        }
        for (number,) in self._rows("SELECT DISTINCT stream_id FROM events"):
            found.setdefault(number, ReferenceStream(number, "", {}))
        return found

    def beginnings(self) -> Mapping[int | None, str]:
        """What the first event of each stream is, in so far as it tells streams apart."""
        first = "SELECT min(rowid) FROM events GROUP BY stream_id"
        query = f"SELECT stream_id, insert_datetime, payload FROM events WHERE rowid IN ({first})"
        return {number: f"{inserted}\0{_payload(payload)}" for number, inserted, payload in self._rows(query)}

    def counts(self, through: int) -> dict[int | None, int]:
        """How many events of each stream there are up to a rowid."""
        query = "SELECT stream_id, count(*) FROM events WHERE rowid <= ? GROUP BY stream_id"
        return {row[0]: row[1] for row in self._rows(query, through)}

    def last(self) -> int:
        """The highest rowid; 0 where there are no events."""
        ((last,),) = self._rows("SELECT max(rowid) FROM events")
        return int(last or 0)

    def chunks(self, after: int) -> Iterator[Chunk]:
        """Events behind a rowid, in the order in which they were inserted."""
        chunk, count, size = Chunk(), 0, 0
        query = "SELECT rowid, insert_datetime, payload, stream_id FROM events WHERE rowid > ? ORDER BY rowid"
        for rowid, inserted, payload, number in self._rows(query, after):
            text = _payload(payload)
            chunk.events.setdefault(number, []).append(ReferenceEvent(str(inserted or ""), text))
            chunk.last = rowid
            count += 1
            size += len(text)
            if count == CHUNK_EVENTS or size >= CHUNK_BYTES:
                yield chunk
                chunk, count, size = Chunk(), 0, 0
        if count:
            yield chunk


def _payload(value: Any) -> str:
    """As JSON; what is none, as the server keeps a message that is none."""
    if isinstance(value, bytes):
        try:
            return json_of(value)
        except BadInput:
            return json.dumps({"base64": base64.b64encode(value).decode()})
    text = str(value) if value is not None else "null"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text


def _headers(value: Any) -> Any:
    try:
        return json.loads(_payload(value))
    except RecursionError:
        return {}
