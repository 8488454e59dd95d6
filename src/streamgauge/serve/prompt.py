"""Requests that are begun where their body ends, and answered by a call, without a task of their own.

A task costs three passes of the event loop and a frame for all that stands between the connection and the store: for
what is sent often and read fast, more than the reading. Whoever takes requests so takes the usual ones only, and leaves
to the ASGI application whatever would have to be waited for, refused or explained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Respond = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], None]
"""Sends status, headers and body, and raises nothing. To be called once, on the event loop, after `begin`."""


@dataclass(slots=True)
class Whole:
    """A request that is there as a whole. headers: of the scope, by name in lower case, where each came once. Who takes
    it keeps `respond` of it and not its body, which is on nobody's account."""

    scope: Scope
    headers: Mapping[bytes, bytes]
    body: bytes
    respond: Respond


Begin = Callable[[Whole], bool]
"""Takes a request and answers it later. False: nothing has happened, and the application is to be called."""


class Prompt(Protocol):
    """Beside an ASGI application, or behind it."""

    def begin(self, request: Whole) -> bool:
        """As Begin."""


class PromptApp(Prompt, Protocol):
    """An ASGI application that takes some requests promptly."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@dataclass(frozen=True, slots=True)
class Prompts:
    """What takes requests of some paths."""

    paths: frozenset[str]
    begin: Begin


class Telling:
    """The headers that say how a body is to be read."""

    def __init__(self, *names: str) -> None:
        self._names = [(name.encode(), name) for name in names]

    def of(self, headers: Mapping[bytes, bytes]) -> dict[str, str]:
        """Those that a request has, as text."""
        return {name: headers[raw].decode("latin-1") for raw, name in self._names if raw in headers}


def never(request: Whole) -> bool:
    """Takes none."""
    return False
