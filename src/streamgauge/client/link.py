"""A connection to a server, as the sender sees it, and how one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

STREAM_HEADER = "X-Stream-Id"
INDEX_HEADER = "X-Stream-Index"
"""With these a client names a stream and the index at which it goes on. A reference server knows neither."""
NEXT_HEADER = "X-Stream-Next"
"""With this a server that numbers events answers which index it expects next."""


class LinkFailed(Exception):
    """The connection is of no use any more; what was not acknowledged is to be sent again."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds that the server asked for


class Refused(LinkFailed):
    """The server does not want one of the events that it was given last."""


class Conflict(LinkFailed):
    """The server expects an index below that of the first event: it lacks what was acknowledged before."""


class Link(Protocol):
    """For one stream, from one index on. All methods raise LinkFailed, and OSError for the network's failures."""

    def send(self, events: Sequence[bytes]) -> None:
        """Begin to send."""

    def wait(self, seconds: float | None) -> int:
        """Send and receive until there is news, the writer wakes, or so long. Returns how many events, of all that it
        was given, are acknowledged; a failure comes after what was acknowledged before it."""

    def finish(self) -> None:
        """Say goodbye, when all is acknowledged. How the server takes it does not matter."""

    def close(self) -> None:
        """At once. Does not raise."""


class Connect(Protocol):
    def __call__(self, stream: str, first: int) -> Link:
        """Raises LinkFailed and OSError."""


def number(text: str | None) -> int | None:
    """A count or an index, as a server writes it; None for anything else."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def expected_index(header: Callable[[str], str | None]) -> int | None:
    """What a server's answer says that it expects next; None of one that does not number events. `header` gives the
    value of one of the answer's headers."""
    return number(header(NEXT_HEADER))
