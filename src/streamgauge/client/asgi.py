"""Requests of an ASGI application as spans."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from streamgauge.client.events import EventWriter
from streamgauge.client.spans import Span

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Middleware:
    """Wraps an application: each request, and each WebSocket, is a span, which goes on the trace that its `traceparent`
    header names. It has `http.method`, `http.path` without the query, `http.route` where the framework tells it, and
    `http.status`.
    """

    def __init__(self, app: App, writer: EventWriter) -> None:
        self._app = app
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "WEBSOCKET")
        http = {"method": method, "path": scope["path"]}

        async def observe(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                http["status"] = message["status"]
            elif message["type"] == "websocket.accept":
                http["status"] = 101
            await send(message)

        parent = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        async with Span(self._writer, f"{method} {scope['path']}", {"http": http}, parent) as span:
            try:
                await self._app(scope, receive, observe)
            except Exception:
                http.setdefault("status", 500)  # as the server will answer
                raise
            finally:
                route = getattr(scope.get("route"), "path", None)
                if isinstance(route, str):
                    http["route"] = route
                    span.name = f"{method} {route}"
