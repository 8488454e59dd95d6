"""How a request shows who sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamgauge.auth.identity import EVERYBODY, Identity


@dataclass(frozen=True, slots=True)
class Credentials:
    """authorization: the header's values, as they came; a request should have one at most. certificate: of the
    client, as `ssl.SSLSocket.getpeercert` describes one that was verified; None without. folder_key: what the data
    folder's lock holds, as whoever may read that can show."""

    authorization: Sequence[str] = field(default=(), repr=False)
    certificate: Mapping[str, Any] | None = None
    folder_key: str = field(default="", repr=False)


class Authenticator(Protocol):
    async def identify(self, credentials: Credentials) -> Identity:
        """Raises Unauthorized, with the challenges to answer with, and Overloaded or NotReady where it cannot tell."""

    def known(self, credentials: Credentials) -> Identity | None:
        """The same where it can be told at once, and None else: `identify` then tells, and counts, what is wrong."""


class Open:
    """Implements Authenticator for a server without authentication: everybody may do everything."""

    async def identify(self, credentials: Credentials) -> Identity:
        return EVERYBODY

    def known(self, credentials: Credentials) -> Identity | None:
        return EVERYBODY
