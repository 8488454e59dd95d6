"""What programs that write to InfluxDB need: POST /write as 1.x has it, POST /api/v2/write as 2.x has it, /ping, and a
/query that knows databases. Most of them come often, so they go past the router.

Errors are JSON as InfluxDB has them: {"error": "a sentence"}, or {"code": "invalid", "message": "a sentence"} below
/api/v2/.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streamgauge import __version__
from streamgauge.errors import BadInput, Busy, StorageError, StreamgaugeError, Unauthorized
from streamgauge.serve.access import admit
from streamgauge.serve.endpoint import identity_of, writes
from streamgauge.serve.health import check_ready
from streamgauge.serve.params import quoted, read_params
from streamgauge.serve.write import read_pieces
from streamgauge.wire.influx_lines import Precision

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from streamgauge.ingest.influx import Written
    from streamgauge.serve.services import Services

WRITE_PATH, WRITE_V2_PATH, PING_PATH, QUERY_PATH = "/write", "/api/v2/write", "/ping", "/query"
METHODS: Mapping[str, tuple[str, ...]] = {
    WRITE_PATH: ("POST",),
    WRITE_V2_PATH: ("POST",),
    PING_PATH: ("GET", "HEAD"),
    QUERY_PATH: ("GET", "HEAD", "POST"),
}
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    WRITE_PATH: ("db", "rp", "precision", "u", "p"),
    WRITE_V2_PATH: ("org", "orgID", "bucket", "precision", "u", "p"),
    PING_PATH: ("verbose",),
    QUERY_PATH: ("q", "u", "p"),
}
"""What clients may give; others of InfluxDB's say nothing here, and are no error."""

_RETRY_SECONDS = 5
_VERSION = {"x-influxdb-version": f"1.8-streamgauge-{__version__}", "x-influxdb-build": "streamgauge"}
_PRECISIONS_V2 = {
    "": Precision.NANOSECONDS,
    "ns": Precision.NANOSECONDS,
    "us": Precision.MICROSECONDS,
    "ms": Precision.MILLISECONDS,
    "s": Precision.SECONDS,
}
_PRECISIONS = {
    **_PRECISIONS_V2,
    "n": Precision.NANOSECONDS,
    "u": Precision.MICROSECONDS,
    "µ": Precision.MICROSECONDS,
    "m": Precision.MINUTES,
    "h": Precision.HOURS,
}
_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    413: "request too large",
    422: "unprocessable entity",
    429: "too many requests",
    500: "internal error",
    503: "unavailable",
}
_CREATE = re.compile(r'create\s+database\s+(?:"(?:[^"\\]|\\.)+"|[a-z_]\w*)(?:\s+with\s.*)?', re.IGNORECASE | re.DOTALL)
_SHOW = re.compile(r"show\s+databases", re.IGNORECASE)
_MAX_STATEMENTS = 100


class InfluxApi:
    """ASGI application of all paths."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] not in METHODS[path]:
            raise HTTPException(405, headers={"Allow": ", ".join(METHODS[path])})
        try:
            if path == PING_PATH:
                answer = await self._ping(scope)
            elif path == QUERY_PATH:
                answer = await self._query(scope, receive)
            else:
                answer = await self._write(scope, receive)
        except StreamgaugeError as error:
            answer = _failure(path, error)
        answer.headers.update(_VERSION)
        await answer(scope, receive, send)

    async def _ping(self, scope: Scope) -> Response:
        params = await read_params(Request(scope), PARAMETERS[PING_PATH])
        if params.text("verbose") not in ("", "0", "false"):
            return _json({"version": _VERSION["x-influxdb-version"]})
        return Response(status_code=204)

    async def _query(self, scope: Scope, receive: Receive) -> Response:
        """CREATE DATABASE and SHOW DATABASES: there is one database, which has any name and is there already."""
        await self._admit(scope)
        params = await read_params(Request(scope, receive), PARAMETERS[QUERY_PATH])
        statements = [part.strip() for part in params.text("q").split(";", _MAX_STATEMENTS) if part.strip()]
        if not statements:
            raise BadInput('missing required parameter "q"')
        return _json({"results": [{"statement_id": at, **_result(text)} for at, text in enumerate(statements)]})

    async def _write(self, scope: Scope, receive: Receive) -> Response:
        scope = await self._admit(scope)
        check_ready(self._services)
        path = scope["path"]
        request = Request(scope)
        params = await read_params(request, PARAMETERS[path], False)
        known, place, words = (
            (_PRECISIONS, "db", "database is required")
            if path == WRITE_PATH
            else (_PRECISIONS_V2, "bucket", "bucket is required")
        )
        if not params.text(place):
            raise BadInput(words)
        if (precision := known.get(params.text("precision"))) is None:
            units = ", ".join(filter(None, known))
            raise BadInput(f"invalid precision {quoted(params.text('precision'))}; valid are {units}")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        bound = identity_of(request).bound
        written = await self._services.influx_write(headers, read_pieces(receive), precision, bound)
        return _answer(path, written)

    async def _admit(self, scope: Scope) -> Scope:
        """The request with the identity of its sender, shown in whichever way InfluxDB's clients do. Raises
        Unauthorized and Forbidden."""
        scope = {**scope, "headers": _with_credentials(scope)}
        await admit(scope, writes, True, self._services.authenticator)
        return scope


def _with_credentials(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers of a request, credentials as everywhere else: a token as one of HTTP, user and password of the query
    string as a header."""
    headers = [
        (name, _authorization(value)) if name == b"authorization" else (name, value) for name, value in scope["headers"]
    ]
    query = Request({"type": "http", "query_string": scope["query_string"], "headers": []}).query_params
    if "u" in query or "p" in query:
        headers.append((b"authorization", _basic(f"{query.get('u', '')}:{query.get('p', '')}".encode())))
    return headers


def _authorization(value: bytes) -> bytes:
    """`Token TEXT` of 2.x, and `Token user:password` as 1.8 has it there, as the server knows them."""
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"token":
        return value
    return _basic(rest.strip()) if b":" in rest else b"Bearer " + rest.strip()


def _basic(pair: bytes) -> bytes:
    return b"Basic " + base64.b64encode(pair)


def _result(statement: str) -> dict[str, object]:
    if _CREATE.fullmatch(statement):
        return {}
    if _SHOW.fullmatch(statement):
        return {"series": [{"name": "databases", "columns": ["name"]}]}
    raise BadInput(
        f"error parsing query: {quoted(statement)} is not answered here: CREATE DATABASE and SHOW DATABASES are, and "
        "values are queried by PromQL and SQL"
    )


def _answer(path: str, written: Written) -> Response:
    if not written.complaint:
        return Response(status_code=204)
    return _error(path, 400 if path == WRITE_PATH or written.unread else 422, written.complaint)


def _failure(path: str, error: StreamgaugeError) -> Response:
    answer = _error(path, error.status, error.message)
    if isinstance(error, Busy | StorageError):
        seconds = error.retry_after if isinstance(error, Busy) else None
        answer.headers["retry-after"] = str(seconds or _RETRY_SECONDS)
    if isinstance(error, Unauthorized):
        for challenge in error.challenges:
            answer.headers.append("www-authenticate", challenge)
    return answer


def _error(path: str, status: int, message: str) -> Response:
    if path == WRITE_V2_PATH:
        code = _CODES.get(status, "invalid")
        answer = _json({"code": code, "message": message}, status)
        answer.headers["x-platform-error-code"] = code
        return answer
    answer = _json({"error": message}, status)
    answer.headers["x-influxdb-error"] = "".join(
        letter if letter.isascii() and letter.isprintable() else " " if letter.isspace() else "?" for letter in message
    )
    return answer


def _json(value: object, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    return Response(body, status, media_type="application/json")
