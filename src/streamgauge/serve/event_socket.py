"""A WebSocket that brings events: its handshake, its conversation and how that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response

from streamgauge.errors import Busy, StorageError, StreamgaugeError, TooLarge
from streamgauge.ingest.events import WEBSOCKET, Events, Opening
from streamgauge.serve.connections import UPGRADE, Upgrade
from streamgauge.serve.websocket import SWITCHING, WebSocket
from streamgauge.wire.websocket_frames import Code, accept_key

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from streamgauge.ingest.event_writer import EventWriter

_KEY_BYTES = 64  # it has 24


def is_handshake(request: Request) -> bool:
    """Whether a GET wants a WebSocket, be it right or wrong. Other upgrades are nobody's business here."""
    return "websocket" in request.headers.get("upgrade", "").lower() or any(
        name.startswith("sec-websocket-") for name in request.headers
    )


def handshake_refusal(request: Request) -> str | None:
    """Why a handshake is refused, in the words that clients of the protocol know; None when it is right."""
    if "upgrade" not in _tokens(request, "connection"):
        return "Connection header did not include 'upgrade'"
    if "websocket" not in _tokens(request, "upgrade"):
        return "`Upgrade` header did not include 'websocket'"
    if request.headers.get("sec-websocket-version", "").strip() != "13":
        return "`Sec-WebSocket-Version` header did not include '13'"
    if not 0 < len(request.headers.get("sec-websocket-key", "").strip()) <= _KEY_BYTES:
        return "`Sec-WebSocket-Key` header missing"
    return None


def upgrade_of(request: Request) -> Upgrade | Response:
    """By what a request becomes a WebSocket, or the answer that says why it does not."""
    if (refusal := handshake_refusal(request)) is not None:
        return PlainTextResponse(f"{refusal}\n", 400, {"sec-websocket-version": "13"})
    upgrade = request.scope.get("extensions", {}).get(UPGRADE)
    if not isinstance(upgrade, Upgrade):
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return PlainTextResponse("this connection cannot be upgraded\n", 426, headers)
    return upgrade


def switching_headers(request: Request) -> list[tuple[bytes, bytes]]:
    key = request.headers["sec-websocket-key"].strip().encode("latin-1")
    return [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_key(key))]


def _tokens(request: Request, header: str) -> set[str]:
    return {token.strip().lower() for value in request.headers.getlist(header) for token in value.split(",")}


class EventSocket(Response):
    """The answer to a handshake. failed: makes the answer where the stream cannot be had."""

    def __init__(
        self, events: Events, request: Request, opening: Opening, failed: Callable[[StreamgaugeError], Response]
    ) -> None:
        self._events = events
        self._request = request
        self._opening = opening
        self._failed = failed
        self._socket: WebSocket | None = None
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upgrade = upgrade_of(self._request)
        if isinstance(upgrade, Response):
            await upgrade(scope, receive, send)
        else:
            await self._open(upgrade, scope, receive, send)

    async def _open(self, upgrade: Upgrade, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin the stream, which is on disk before the handshake is over, and talk."""
        failure: StreamgaugeError | None = None
        try:
            async with self._events.stream(self._opening, self._acknowledge) as writer:
                await writer.flush()
                upgrade.limit = self._events.limits.event
                await send({"type": "http.response.start", "status": SWITCHING, "headers": self._switching(writer)})
                self._socket = upgrade.socket
                if self._socket is not None:
                    await self._converse(self._socket, writer)
        except StreamgaugeError as error:
            failure = error
            if self._socket is None:
                await self._failed(error)(scope, receive, send)
        self._events.count_request(WEBSOCKET, failure)
        if self._socket is not None:
            _end(self._socket, failure)

    def _switching(self, writer: EventWriter) -> list[tuple[bytes, bytes]]:
        headers = switching_headers(self._request)
        if self._opening.name:
            headers.append((b"x-stream-next", b"%d" % writer.next_index))
        return headers

    def _acknowledge(self, count: int) -> None:
        if self._socket is not None:
            self._socket.acknowledge(count)

    async def _converse(self, socket: WebSocket, writer: EventWriter) -> None:
        with self._events.account() as held:
            socket.hold = held.add
            async with contextlib.aclosing(socket.bursts()) as bursts:
                await self._events.receive_messages(writer, bursts)
        socket.acknowledge(writer.count)  # once more, for who waits for it after the last message


def _end(socket: WebSocket, failure: StreamgaugeError | None) -> None:
    """Close as the conversation ended."""
    if failure is None:
        assert socket.end is not None
        socket.close(socket.end.code, socket.end.reason)
    elif isinstance(failure, TooLarge):
        socket.close(Code.TOO_LARGE, failure.message)
    else:
        retry = isinstance(failure, (Busy, StorageError))
        socket.close(Code.TRY_AGAIN if retry else Code.INTERNAL, failure.message)
