"""Events into files of JSON lines compressed by zstd, as the reference server lays them out.

A write ends a zstd frame in each file that it adds to, and syncs it, so that whatever was written can be read.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import BinaryIO

import pyarrow as pa

from streamgauge.errors import DeliveryFailed
from streamgauge.forward.destination import Event, JsonFilesTarget
from streamgauge.model.events import Stream

TABLES = ("streams", "events")


class JsonFilesOutlet:
    """Implements Outlet. Each opening begins files of its own: the end of one that was cut off is never written on."""

    def __init__(self, target: JsonFilesTarget) -> None:
        self._target = target
        self._files: dict[str, BinaryIO] = {}
        self._written: set[int] = set()  # streams, by this one
        self._codec = pa.Codec("zstd")
        with self._translated():
            target.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise DeliveryFailed(f"{self._target.folder} cannot be written to: {why}") from None

    def write(self, streams: Sequence[Stream], events: Sequence[Event]) -> int:
        fresh = [stream for stream in streams if stream.id not in self._written]
        with self._translated():
            self._append("streams", map(_stream_line, fresh))
            self._append("events", map(_event_line, events))
        self._written.update(stream.id for stream in fresh)
        return 0

    def _append(self, table: str, lines: Iterator[str]) -> None:
        text = "".join(lines).encode("utf-8", "surrogatepass")
        if not text:
            return
        file = self._files.get(table)
        if file is None:
            name = f"{table}.file.{secrets.token_hex(8)}.json.zst"
            file = self._files[table] = (self._target.folder / name).open("xb")
        file.write(self._codec.compress(text, asbytes=True))
        file.flush()
        os.fsync(file.fileno())
        if file.tell() >= self._target.max_bytes:
            self._files.pop(table).close()

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _stream_line(stream: Stream) -> str:
    head = json.dumps({"stream_id": stream.id, "start_datetime": moment(stream.started)})
    return f'{head[:-1]}, "headers": {stream.headers or "{}"}}}\n'


def _event_line(event: Event) -> str:
    head = {"insert_datetime": moment(event.received), "stream_id": event.stream, "stream_event_index": event.index}
    payload = event.payload.replace("\n", " ").replace("\r", " ")  # between values: within texts they are escaped
    return f'{json.dumps(head)[:-1]}, "payload": {payload}}}\n'


def moment(time: int) -> str:
    """ns as RFC 3339 has it."""
    whole, rest = divmod(time, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
