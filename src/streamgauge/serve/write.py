"""POST /api/v1/write: the way of most samples, so it goes past the router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from streamgauge.auth.identity import Permission
from streamgauge.errors import StreamgaugeError
from streamgauge.serve.access import admit, credentials_of
from streamgauge.serve.endpoint import identity_of, writes
from streamgauge.serve.health import check_ready
from streamgauge.serve.prompt import Telling, Whole

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from streamgauge.serve.services import Services, WriteReply

PATH = "/api/v1/write"
_TELLING = Telling("content-type", "content-encoding")


class RemoteWrite:
    """ASGI application: hands the body to the receiver of the wire format as it arrives, and sends its reply."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def begin(self, request: Whole) -> bool:
        """Of somebody who may write anything, as `serve.prompt` says."""
        if request.scope["method"] != "POST":
            return False
        identity = self._services.authenticator.known(credentials_of(request.scope))
        if identity is None or identity.bound or Permission.WRITE not in identity.permissions:
            return False

        respond = request.respond

        def done(reply: WriteReply) -> None:
            respond(reply.status, _headers_of(reply), reply.body.encode())

        try:
            return self._services.begin_remote_write(_TELLING.of(request.headers), request.body, done)
        except StreamgaugeError:  # the application says so
            return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        await admit(scope, writes, True, self._services.authenticator)
        check_ready(self._services)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        bound = identity_of(Request(scope)).bound
        reply = await self._services.remote_write(headers, read_pieces(receive), bound)
        await send({"type": "http.response.start", "status": reply.status, "headers": _headers_of(reply)})
        await send({"type": "http.response.body", "body": reply.body.encode()})


def _headers_of(reply: WriteReply) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.status != 204:
        headers.append((b"content-length", b"%d" % len(reply.body.encode())))
    return headers


async def read_pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The request's body. Raises ClientDisconnect when the client goes away before its end."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message["more_body"]
        if message["body"]:
            yield message["body"]
