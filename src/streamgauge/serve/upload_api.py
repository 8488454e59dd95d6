"""POST /upload and /metrics/v1/receive: pushes of clusters. They come often, so they go past the router.

Without a section `federation:` there is nothing at these paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from streamgauge.errors import StreamgaugeError, Unauthorized
from streamgauge.serve.errors import failure
from streamgauge.serve.health import check_ready
from streamgauge.serve.prompt import Respond, Telling, Whole
from streamgauge.serve.write import read_pieces
from streamgauge.wire.push_part import HEADER as PART_HEADER

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from streamgauge.serve.services import Services

UPLOAD_PATH = "/upload"
RECEIVE_PATH = "/metrics/v1/receive"
PUSH_PATHS = frozenset({UPLOAD_PATH, RECEIVE_PATH})


_TELLING = Telling("content-type", "content-encoding", PART_HEADER)
_NOTHING: Mapping[str, str] = {}


class PushApi:
    """ASGI application of both paths."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_ready(self._services)
        answer = self._upload if scope["path"] == UPLOAD_PATH else self._receive
        headers = await answer(scope, receive)
        await send({"type": "http.response.start", "status": 200, "headers": _listed(headers)})
        await send({"type": "http.response.body", "body": b""})

    def begin(self, request: Whole) -> bool:
        """A push of a cluster whose token can be judged at once, as `serve.prompt` says."""
        if request.scope["method"] != "POST":
            return False
        path, respond = request.scope["path"], request.respond
        authorization = request.headers.get(b"authorization", b"").decode("latin-1")
        headers = _TELLING.of(request.headers)

        def done(error: StreamgaugeError | None, named: Mapping[str, str] = _NOTHING) -> None:
            _answer(path, respond, error, named)

        try:
            access, pushes = self._services.cluster_access, self._services.pushes
            identity = (access.known if path == UPLOAD_PATH else access.confirmed)(authorization)
        except StreamgaugeError:  # the application says so
            return False
        if identity is None:
            return False
        if path == UPLOAD_PATH:
            return pushes.begin_upload(identity, headers, request.body, done)
        begun = pushes.begin_receive(identity, headers, request.body, done)
        if begun:
            access.granted()
        return begun

    async def _upload(self, scope: Scope, receive: Receive) -> Mapping[str, str]:
        access = self._services.cluster_access
        if scope["method"] != "POST":
            raise HTTPException(404)  # as the original answers
        headers = _headers(scope)
        identity = access.verify(_authorization(scope))
        await self._services.pushes.upload(identity, headers, read_pieces(receive))
        return {}

    async def _receive(self, scope: Scope, receive: Receive) -> Mapping[str, str]:
        access = self._services.cluster_access
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        headers = _headers(scope)
        certificate = scope.get("extensions", {}).get("tls", {}).get("client_cert")
        identity = await access.verify_receive(_authorization(scope), scope["headers"], certificate)
        return await self._services.pushes.receive(identity, headers, read_pieces(receive))


def _answer(path: str, respond: Respond, error: StreamgaugeError | None, headers: Mapping[str, str]) -> None:
    if error is None:
        respond(200, _listed(headers), b"")
    else:
        answer = failure(path, error)
        respond(answer.status_code, answer.raw_headers, bytes(answer.body))


def _listed(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [*((name.encode(), value.encode()) for name, value in headers.items()), (b"content-length", b"0")]


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _authorization(scope: Scope) -> str | None:
    """The one header that there may be. Raises Unauthorized where there are several: which of them counts is moot."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) > 1:
        raise Unauthorized("more than one Authorization header", ("Bearer",))
    return values[0].decode("latin-1") if values else None
