"""What stands before the guard for the stats API of relays: the pages that may call it, and its own listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.serve.live_tags_api import PATH as LIVE_PATH
from streamgauge.serve.stats_api import PREFIX

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from streamgauge.serve.prompt import PromptApp, Whole

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "Accept, Authorization, Content-Type, X-AUTH-TOKEN",
    "access-control-max-age": "600",
}
_OF_PAGES = (b"origin", b"sec-fetch-site", b"sec-fetch-mode")


class StatsOrigins:
    """ASGI middleware that lets pages of one origin, or with * all, call the stats API, whatever the guard behind it
    says of pages. Who calls must still show what the API asks for."""

    def __init__(self, app: PromptApp, origin: str) -> None:
        self._app = app
        self._origin = origin

    def begin(self, request: Whole) -> bool:
        return not _is_stats_api(request.scope["path"]) and self._app.begin(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._origin or not _is_stats_api(scope["path"]):
            await self._app(scope, receive, send)
            return
        permission = {"access-control-allow-origin": self._origin}
        if self._origin != "*":
            permission["vary"] = "Origin"
        added = [(name.encode(), value.encode()) for name, value in permission.items()]

        async def permitted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        origin = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
        if origin is not None and self._origin in ("*", origin):
            if scope["method"] == "OPTIONS":
                await Response(status_code=204, headers=permission | _PREFLIGHT)(scope, receive, send)
                return
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in _OF_PAGES]}
        await self._app(scope, receive, permitted)


def _is_stats_api(path: str) -> bool:
    return path.startswith(f"{PREFIX}/") or path == LIVE_PATH


class AtRoot:
    """The stats API without its prefix, and nothing else, for a listener of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = PREFIX + scope["path"]
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)
