"""Server-Sent Events, taken apart: https://html.spec.whatwg.org/multipage/server-sent-events.html

Lines end with a line feed, as ours do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SseEvent:
    """`id` is the last one that was sent, with this event or before it."""

    event: str  # "message" where the sender names none
    id: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class SseParser:
    """id: the last one that was sent. comments: how many came."""

    def __init__(self) -> None:
        self.id = ""
        self.comments = 0
        self._rest = b""
        self._event = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[SseEvent]:
        """The events that this piece of the stream completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if (event := self.line(line.decode(errors="replace"))) is not None:
                yield event

    def line(self, line: str) -> SseEvent | None:
        """The event that ends with this line, which is without its end."""
        if not line:
            event = SseEvent(self._event or "message", self.id, "\n".join(self._data)) if self._data else None
            self._event, self._data = "", []
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "id":
            self.id = value
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        return None
