"""A live tail as Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html), and as a
WebSocket, each message of which is the JSON of an event or a sample."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from streamgauge.errors import Busy, StorageError, StreamgaugeError
from streamgauge.live.history import CONTENT_TYPE
from streamgauge.live.messages import texts_of
from streamgauge.serve.answers import disconnected
from streamgauge.serve.event_socket import switching_headers
from streamgauge.serve.websocket import SWITCHING
from streamgauge.wire.websocket_frames import Code

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Send

    from streamgauge.live.subscription import Delivery
    from streamgauge.serve.connections import Upgrade
    from streamgauge.serve.websocket import WebSocket

HEADERS = {
    "content-type": CONTENT_TYPE,
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold messages back
}
_ALIVE = b":\n\n"
_RETRY_MS = 1000
"""After which a browser comes back when the connection has ended: it takes 3 s and more by itself."""
_INCOMING_BYTES = 4096
"""Of a message from the client. Nobody reads it."""


class EventStreamOutlet:
    """Implements tail_answer.Outlet."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def begin(self) -> None:
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def stand(self, position: str) -> None:
        """No event for a browser, but it knows where it stands before the first one comes."""
        await self.past(f"retry: {_RETRY_MS}\nid: {position}\n\n".encode())

    async def past(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def present(self, delivery: Delivery) -> None:
        """What was lost stands before what came after it."""
        pieces = [frame.sse for frame in delivery.frames]
        if (missing := _missing(delivery)) is not None:
            pieces.insert(0, f"event: lost\ndata: {missing}\n\n".encode())
        await self.past(b"".join(pieces) or _ALIVE)

    async def fail(self, error: StreamgaugeError) -> None:
        data = json.dumps({"error": error.message}, ensure_ascii=False)
        await self.past(f"\n\nevent: error\ndata: {data}\n\n".encode())
        await self.end()

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def gone(self) -> None:
        await disconnected(self._receive)

    async def close(self) -> None:
        pass


class SocketOutlet:
    """Implements tail_answer.Outlet. What the client sends is thrown away."""

    def __init__(self, request: Request, upgrade: Upgrade, receive: Receive, send: Send) -> None:
        self._request = request
        self._upgrade = upgrade
        # From the beginning: once the handshake is answered, who begins to wait is told that the request is over.
        self._lost = asyncio.ensure_future(disconnected(receive))
        self._send = send
        self._socket: WebSocket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._over = asyncio.Event()  # the client has said goodbye
        self._rest = b""  # of history: an event that is not whole

    @staticmethod
    def of(request: Request, upgrade: Upgrade) -> Callable[[Receive, Send], SocketOutlet]:
        return lambda receive, send: SocketOutlet(request, upgrade, receive, send)

    async def begin(self) -> None:
        self._upgrade.limit = _INCOMING_BYTES
        headers = switching_headers(self._request)
        await self._send({"type": "http.response.start", "status": SWITCHING, "headers": headers})
        self._socket = self._upgrade.socket
        if self._socket is not None:
            self._reading = asyncio.ensure_future(self._read(self._socket))

    async def _read(self, socket: WebSocket) -> None:
        async for _ in socket.bursts():
            pass
        self._over.set()

    async def stand(self, position: str) -> None:
        pass

    async def past(self, chunk: bytes) -> None:
        *events, self._rest = (self._rest + chunk).split(b"\n\n")
        await self._say(texts_of(events))

    async def present(self, delivery: Delivery) -> None:
        texts = [text for frame in delivery.frames for text in frame.texts]
        if (missing := _missing(delivery)) is not None:
            texts.insert(0, missing)
        await self._say(texts)  # signs of life are for the socket itself, which pings

    async def _say(self, texts: list[str]) -> None:
        if self._socket is not None and texts:
            await self._socket.send(texts)

    async def fail(self, error: StreamgaugeError) -> None:
        if self._socket is not None:
            retry = isinstance(error, (Busy, StorageError))
            self._socket.close(Code.TRY_AGAIN if retry else Code.INTERNAL, error.message)

    async def end(self) -> None:
        if self._socket is not None:
            self._socket.close(Code.GOING_AWAY, "the server stops")

    async def gone(self) -> None:
        """The connection is lost before the handshake is answered or after it, or the client says goodbye."""
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((self._lost, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()

    async def close(self) -> None:
        tasks = [self._lost, self._reading] if self._reading is not None else [self._lost]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None and self._socket.end is not None:
            self._socket.close(self._socket.end.code, self._socket.end.reason)


def _missing(delivery: Delivery) -> str | None:
    if not (delivery.lost or delivery.unchecked):
        return None
    return json.dumps({"lost": delivery.lost, "unchecked": delivery.unchecked}, separators=(",", ":"))
