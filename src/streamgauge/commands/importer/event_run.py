"""The import of a reference server's events: each of its streams becomes a stream with a name.

A stream with a name takes each index once, so whatever was stored and not noted is sent again, and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streamgauge.commands.importer.blocks import Position
from streamgauge.commands.importer.progress import Progress
from streamgauge.commands.importer.reference import ReferenceEvent, ReferenceFile, ReferenceStream
from streamgauge.commands.importer.run import Patience
from streamgauge.commands.importer.state import Saved, StateFile, Tally
from streamgauge.commands.importer.targets import SentEvents, Target
from streamgauge.errors import BadInput
from streamgauge.ingest.request_headers import headers_json

MAX_HEADER_BYTES = 16 << 10
"""Of the header that says what a stream was: a server takes 64 KiB of all."""
_TIMES = frozenset({"time", "timestamp", "ts", "@timestamp"})
"""Members of a payload that SQL takes for an event's own time."""


@dataclass(slots=True)
class EventImport:
    """One file's. member: which payloads that are objects and have no time get, with when they were inserted; "" for
    none. `run` once."""

    file: ReferenceFile
    label: str  # of the file
    target: Target
    patience: Patience
    state: StateFile
    progress: Progress
    member: str = ""
    timeless: int = 0  # objects without a time of their own, sent by this run

    def run(self, saved: Saved | None) -> Tally:
        """Raises what the target raises when patience has come to its end; what was acknowledged by then is noted."""
        tally = saved.tally if saved else Tally()
        after = saved.position.offset if saved else 0
        streams, names = self.file.streams(), dict(self._names())
        counts = self.file.counts(after)
        last = max(self.file.last(), 1)
        for chunk in self.file.chunks(after):
            for number, events in chunk.events.items():
                self._send(streams[number], names[number], counts.get(number, 0) + 1, events)
                counts[number] = counts.get(number, 0) + len(events)
                tally.stored += len(events)
            self.state.save(Saved(Position(chunk.last, chunk.last), tally, {}))
            self.progress.update(chunk.last * self._size() // last, tally.stored)
        for number, stream in streams.items():
            if number not in counts:
                self._send(stream, names[number], 1, [])
        return tally

    def _size(self) -> int:
        return self.progress.size or 0

    def _names(self) -> Iterator[tuple[int | None, str]]:
        beginnings = self.file.beginnings()
        for number, stream in self.file.streams().items():
            yield number, self._name(stream, beginnings.get(number, ""))

    def _name(self, stream: ReferenceStream, beginning: str) -> str:
        """Is the same for the same stream, wherever its file is, and however it grows."""
        known = [str(stream.id), stream.started, json.dumps(stream.headers, sort_keys=True), beginning, self.member]
        return "import-" + hashlib.sha256("\0".join(known).encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _send(self, stream: ReferenceStream, name: str, first: int, events: list[ReferenceEvent]) -> None:
        body = "\n".join(map(self._payload, events)).encode("utf-8", "surrogatepass")
        sent = SentEvents(name, first, _source(self.label, stream), body)
        self.patience.send(lambda: self.target.send_events(sent))

    def _payload(self, event: ReferenceEvent) -> str:
        if not event.payload.startswith("{"):
            return event.payload
        try:
            value: Mapping[str, Any] = json.loads(event.payload)
        except RecursionError:
            return event.payload
        if _TIMES & value.keys() or not event.inserted:
            return event.payload
        self.timeless += 1
        if not self.member:
            return event.payload
        time = json.dumps(event.inserted.replace(" ", "T", 1) + "Z")
        rest = event.payload[1:].lstrip()
        return f"{{{json.dumps(self.member)}:{time}{'' if rest.startswith('}') else ','}{rest}"


def _source(label: str, stream: ReferenceStream) -> str:
    """Secrets in the headers are taken out as they are of any request."""
    about: dict[str, Any] = {"file": label, "stream_id": stream.id, "start_datetime": stream.started}
    pairs = stream.headers.items() if isinstance(stream.headers, dict) else ()
    headers = json.loads(
        headers_json(
            (_bytes(name), _bytes(value))
            for name, values in pairs
            for value in (values if isinstance(values, list) else [values])
        )
    )
    full = json.dumps({**about, "headers": headers})
    return full if len(full) <= MAX_HEADER_BYTES else json.dumps(about)


def _bytes(text: Any) -> bytes:
    return str(text).encode("latin-1", "backslashreplace")


def check_member(text: str) -> str:
    """Raises BadInput for what is no name of a member that an event's time is found by."""
    if text not in _TIMES:
        raise BadInput(f'--event-time "{text}": write one of {", ".join(sorted(_TIMES))}, which SQL finds a time by')
    return text
