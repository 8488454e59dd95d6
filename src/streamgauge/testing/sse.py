"""Server-Sent Events, taken apart: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SseEvent:
    """`id` is the last one that was sent, with this event or before it."""

    event: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class SseParser:
    """Made of lines without their ends."""

    def __init__(self) -> None:
        self.id = ""
        self.comments = 0
        self._event = ""
        self._data: list[str] = []

    def line(self, line: str) -> SseEvent | None:
        """The event that ends with this line."""
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


async def sse_events(lines: AsyncIterator[str]) -> AsyncIterator[SseEvent]:
    parser = SseParser()
    async for line in lines:
        if (event := parser.line(line)) is not None:
            yield event
