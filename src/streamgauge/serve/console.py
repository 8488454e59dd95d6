"""The page that a browser sees: no script of anybody else's, nothing fetched from anywhere
else, so it works without a network."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from streamgauge import __version__
from streamgauge.serve.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from streamgauge.serve.params import Params

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_FILES = frozenset({"console.css", "console.js", "graph.js", "complete.js", "events.js"})
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


class Console:
    """`paths` lists what the server answers, for a program that asks for `/`. Its route is another's, who sends here
    whoever does not bring events."""

    def __init__(self, paths: Callable[[], list[str]]) -> None:
        self._paths = paths

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("/graph", self.page, while_starting=True, bound=True),
            Endpoint("/ui/{file}", self.file, while_starting=True, bound=True),
        ]

    async def welcome(self, request: Request, params: Params) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return await self.page(request, params)
        return JSONResponse(
            {"product": "streamgauge", "version": __version__, "paths": self._paths()}, headers={"vary": "Accept"}
        )

    async def page(self, request: Request, params: Params) -> Response:
        response = _file("index.html")
        response.headers["vary"] = "Accept"
        return response

    async def file(self, request: Request, params: Params) -> Response:
        name = request.path_params["file"]
        if name not in _FILES:
            raise HTTPException(404)
        return _file(name)


def _file(name: str) -> Response:
    body = files("streamgauge.serve").joinpath("ui", name).read_bytes()
    return Response(body, headers=_HEADERS, media_type=_TYPES[name.rpartition(".")[2]])
