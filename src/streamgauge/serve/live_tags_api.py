"""The live channel of relays over a WebSocket: GET /subscribe/websocket, as Mist has it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.auth.identity import Permission
from streamgauge.errors import NotFound, Unauthorized
from streamgauge.serve.access import credentials_of
from streamgauge.serve.answers import disconnected
from streamgauge.serve.connections import Upgrade
from streamgauge.serve.endpoint import IDENTITY, Endpoint, identity_of
from streamgauge.serve.event_socket import switching_headers, upgrade_of
from streamgauge.serve.sessions import LET_IN
from streamgauge.serve.stats_api import PREFIX, StatsAccess, token_of
from streamgauge.serve.websocket import SWITCHING
from streamgauge.wire.websocket_frames import Code

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from streamgauge.live.tags import Subscriber
    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services
    from streamgauge.serve.websocket import WebSocket

PATH = "/subscribe/websocket"
MAX_MESSAGE_BYTES = 65_536


class LiveTagsApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._access = StatsAccess(options)

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(path, self.follow, needs=self._access.reads) for path in (PATH, PREFIX + PATH)]

    async def follow(self, request: Request, params: Params) -> Response:
        relays = self._services.relays
        if relays is None:
            raise NotFound("relays are not configured; a section relay: in the configuration does that")
        upgrade = upgrade_of(request)
        if not isinstance(upgrade, Upgrade):
            return upgrade
        publishes = await self._publishes(request)
        if self._access.reads(request) is None:
            token = token_of(request)
            request.scope[LET_IN] = lambda: relays.lets_in(token)
        return _LiveSocket(request, upgrade, relays.live_tags.join(), publishes)

    async def _publishes(self, request: Request) -> bool:
        """Whoever came by the relays' token alone may not, where others are asked for the permission."""
        if IDENTITY in request.scope:
            return Permission.WRITE in identity_of(request).permissions
        try:
            identity = await self._services.authenticator.identify(credentials_of(request.scope))
        except Unauthorized:
            return False
        publishes = Permission.WRITE in identity.permissions and not identity.bound
        if publishes:
            request.scope[IDENTITY] = identity  # so that who may not any more is hung up on
        return publishes


class _LiveSocket(Response):
    def __init__(self, request: Request, upgrade: Upgrade, subscriber: Subscriber, publishes: bool) -> None:
        self._request = request
        self._upgrade = upgrade
        self._subscriber = subscriber
        self._publishes = publishes
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._upgrade.limit = MAX_MESSAGE_BYTES
        tasks = [asyncio.ensure_future(disconnected(receive))]
        try:
            await asyncio.sleep(0)  # once the handshake is answered, who begins to wait is told that it is over
            headers = switching_headers(self._request)
            await send({"type": "http.response.start", "status": SWITCHING, "headers": headers})
            if (socket := self._upgrade.socket) is not None:
                tasks += [asyncio.ensure_future(self._read(socket)), asyncio.ensure_future(self._write(socket))]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                end = socket.end
                socket.close(*((end.code, end.reason) if end is not None else (Code.GOING_AWAY, "the server stops")))
        finally:
            self._subscriber.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, socket: WebSocket) -> None:
        async with contextlib.aclosing(socket.bursts()) as bursts:
            async for burst in bursts:
                for message in burst:
                    self._subscriber.handle(message, self._publishes)
                    await asyncio.sleep(0)

    async def _write(self, socket: WebSocket) -> None:
        while texts := await self._subscriber.next():
            await socket.send(texts)
