"""Where an import goes, and a server as such a place. `folder_target.py` has the other one."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from streamgauge.commands.client import ServerUnreachable, ask, error_of
from streamgauge.commands.server import Server
from streamgauge.errors import Busy, Forbidden, StreamgaugeError
from streamgauge.wire.sample_table import CONTENT_TYPE

PATH, EVENTS_PATH = "/api/v1/import", "/api/v1/events"
HEADER = "x-imported-from"
"""In which the headers of a stream say what it was."""
ANSWER_SECONDS = 300.0
"""Within which a server answers one request, waiting for its disk and for a flush included."""


@dataclass(frozen=True, slots=True)
class Example:
    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    stored: int
    refused: dict[str, int]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class SentEvents:
    """Events of one stream. source: the value of the header that says where they are from, ASCII. first: index."""

    name: str
    first: int
    source: str
    body: bytes


class Target(Protocol):
    """Used by one thread at a time."""

    def send(self, body: bytes) -> Answer:
        """Store what `wire.sample_table` has encoded; it is on disk then. Raises StreamgaugeError: Busy, StorageError
        and ServerUnreachable where the same may go well later."""

    def send_events(self, events: SentEvents) -> None:
        """Store them; they are on disk then. Raises Busy, StorageError and ServerUnreachable where the same may go well
        later, and ClientError where not."""

    def close(self) -> None: ...


class ServerTarget:
    """A server, over one connection that is opened anew when it breaks."""

    def __init__(self, server: Server) -> None:
        self.server = server
        parts = urllib.parse.urlsplit(server.url)
        assert parts.hostname is not None
        self._connection = (
            http.client.HTTPSConnection(parts.hostname, parts.port, timeout=ANSWER_SECONDS, context=server.context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_SECONDS)
        )
        self._base = parts.path.rstrip("/")

    def check(self) -> None:
        """Raise ServerUnreachable, or another error, when there is no server. One that is starting counts, and
        one that does not tell us of itself: who may write need not be permitted to read that."""
        with contextlib.suppress(Busy, Forbidden):
            ask(self.server, "/api/v1/status/runtimeinfo")

    def send(self, body: bytes) -> Answer:
        data = self._post(PATH, body, {"content-type": CONTENT_TYPE})
        try:
            return answer_of(data)
        except (ValueError, KeyError, TypeError):
            raise self._stranger() from None

    def send_events(self, events: SentEvents) -> None:
        headers = {
            "accept": "application/json",
            "content-type": "application/x-ndjson",
            "x-stream-id": events.name,
            "x-stream-index": str(events.first),
            HEADER: events.source,
        }
        self._post(EVENTS_PATH, events.body, headers)

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """The data of the answer."""
        path = self._base + path
        try:
            self._connection.request("POST", path, body, {**headers, **self.server.secrets})
            with self._connection.getresponse() as response:
                data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServerUnreachable(f"the server at {self.server} does not answer ({why.lower()})") from None
        if response.status != 200:
            raise error_of(response.status, response.reason, path, data, response.headers.get("retry-after"))
        try:
            return json.loads(data)["data"]
        except (ValueError, KeyError, TypeError):
            raise self._stranger() from None

    def _stranger(self) -> StreamgaugeError:
        return StreamgaugeError(f"what answers at {self.server} is no streamgauge")

    def close(self) -> None:
        self._connection.close()


def answer_of(data: Any) -> Answer:
    """The answer to a request, from its JSON. Raises KeyError and TypeError."""
    examples = tuple(Example(one["row"], one["reason"], one["text"]) for one in data["examples"])
    return Answer(int(data["stored"]), dict(data["refused"]), examples)
