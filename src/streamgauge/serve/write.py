"""POST /api/v1/write: the way of most samples, so it goes past the router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from streamgauge.serve.access import admit
from streamgauge.serve.endpoint import identity_of, writes
from streamgauge.serve.health import check_ready

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from streamgauge.serve.services import Services

PATH = "/api/v1/write"


class RemoteWrite:
    """ASGI application: hands the body to the receiver of the wire format as it arrives, and sends its reply."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        await admit(scope, writes, True, self._services.authenticator)
        check_ready(self._services)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        bound = identity_of(Request(scope)).bound
        reply = await self._services.remote_write(headers, read_pieces(receive), bound)
        body = reply.body.encode()
        answer = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
        if reply.status != 204:
            answer.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": answer})
        await send({"type": "http.response.body", "body": body})


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
