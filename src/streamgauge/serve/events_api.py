"""Events over HTTP and WebSocket, at `/` for the clients there are, and below /api/v1.

A POST is answered with the bare number of its events that are on disk, or with JSON where that is asked for. A request
that wants to become a WebSocket gets the wording that its clients know when it cannot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.auth.identity import Permission
from streamgauge.errors import BadInput, Busy, IndexConflict, StorageError, StreamgaugeError
from streamgauge.ingest.events import HTTP, RETRY_SECONDS, WEBSOCKET, Opening, Received
from streamgauge.ingest.request_headers import headers_json
from streamgauge.serve.connections import PATIENT
from streamgauge.serve.endpoint import GET, GET_OR_POST, Endpoint, identity_of, writes
from streamgauge.serve.event_socket import EventSocket, is_handshake
from streamgauge.serve.health import check_ready

if TYPE_CHECKING:
    from starlette.requests import Request

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

PATH, SOCKET_PATH = "/api/v1/events", "/api/v1/events/ws"
MAX_NAME = 200
"""Characters of a stream's name: a UUID has 36, and names are kept in memory."""
MAX_INDEX = 1 << 62

_OPENING_PARAMS = ("stream", "index")
_PARAMS = ("format", *_OPENING_PARAMS)
_INDEX = re.compile(r"[0-9]{1,19}", re.ASCII)

Welcome = Callable[["Request", "Params"], Awaitable[Response]]


class EventsApi:
    """welcome: answers a GET of `/` that is no WebSocket's."""

    def __init__(self, services: Services, welcome: Welcome) -> None:
        self._services = services
        self._welcome = welcome

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "/",
                self.root,
                GET_OR_POST,
                _PARAMS,
                while_starting=True,
                takes_form=False,
                needs=_root_needs,
                bound=True,
            ),
            Endpoint(PATH, self.receive, ("POST",), _PARAMS, takes_form=False, needs=writes, bound=True),
            Endpoint(SOCKET_PATH, self.converse, GET, _OPENING_PARAMS, needs=writes, bound=True),
        ]

    async def root(self, request: Request, params: Params) -> Response:
        if request.method == "GET" and is_handshake(request):
            check_ready(self._services)
            return await self.converse(request, params)
        if request.method == "POST":
            check_ready(self._services)
            return await self.receive(request, params)
        return await self._welcome(request, params)

    async def receive(self, request: Request, params: Params) -> Response:
        request.scope["state"][PATIENT] = True  # a log may be quiet for hours
        try:
            opening = read_opening(request, params, HTTP)
            lines = _wants_lines(request, params)
        except BadInput as error:
            return _failed(request, error)
        received = await self._services.events.receive(opening, request.headers, request.stream(), lines)
        return _answer(request, received, bool(opening.name))

    async def converse(self, request: Request, params: Params) -> Response:
        try:
            opening = read_opening(request, params, WEBSOCKET)
        except BadInput as error:
            return _failed(request, error)
        return EventSocket(self._services.events, request, opening, lambda error: _failed(request, error))


def _root_needs(request: Request) -> Permission:
    brings = request.method == "POST" or is_handshake(request)
    return Permission.WRITE if brings else Permission.READ


def _failed(request: Request, error: StreamgaugeError) -> Response:
    return _answer(request, Received(error=error))


def read_opening(request: Request, params: Params, transport: str) -> Opening:
    """The stream that a request brings, by its headers or else its parameters. Raises BadInput."""
    name = request.headers.get("x-stream-id", "") or params.text("stream")
    index = request.headers.get("x-stream-index", "") or params.text("index")
    headers = headers_json(request.headers.raw)
    identity = identity_of(request)
    owner = identity.name if identity.bound else None
    if not name and not index:
        return Opening(transport, headers, owner=owner)
    if not name:
        raise BadInput("X-Stream-Index needs X-Stream-Id, the name of the stream that it is an index of")
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadInput(f"X-Stream-Id is not a name of at most {MAX_NAME} printable characters")
    if not index:
        raise BadInput("X-Stream-Id needs X-Stream-Index, the index of the first event that is sent")
    if not _INDEX.fullmatch(index) or not 1 <= int(index) <= MAX_INDEX:
        raise BadInput("X-Stream-Index is not a whole number from 1 on")
    return Opening(transport, headers, name, int(index), owner)


def _wants_lines(request: Request, params: Params) -> bool:
    wanted = params.text("format")
    if wanted not in ("", "json", "lines"):
        raise BadInput('invalid parameter "format": write json or lines')
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return wanted == "lines" or (not wanted and kind == "text/plain")


def _answer(request: Request, received: Received, named: bool = False) -> Response:
    error = received.error
    headers = {"vary": "Accept", "x-content-type-options": "nosniff"}
    next_index = error.expected if isinstance(error, IndexConflict) else received.next_index if named else 0
    if next_index:
        headers["x-stream-next"] = str(next_index)
    if isinstance(error, (Busy, StorageError)):
        headers["retry-after"] = str((isinstance(error, Busy) and error.retry_after) or RETRY_SECONDS)
    status = error.status if error is not None else 200
    if "application/json" in request.headers.get("accept", "").lower():
        body = json.dumps(_report(received, next_index), ensure_ascii=False)
        return Response(body, status, headers, "application/json")
    if error is not None:
        headers["x-reason"] = error.message.encode("ascii", "backslashreplace").decode()
    return Response(str(received.count), status, headers, "text/plain; charset=utf-8")


def _report(received: Received, next_index: int) -> dict[str, object]:
    """The API's envelope, of errors too with how much was stored."""
    data: dict[str, object] = {"count": received.count}
    if received.stream:
        data["stream_id"] = received.stream
    if next_index:
        data["next"] = next_index
    if received.stop is not None:
        data |= {"event": received.stop.event, "byte": received.stop.byte}
    if received.error is None:
        return {"status": "success", "data": data}
    return {"status": "error", "errorType": received.error.kind, "error": received.error.message, "data": data}
