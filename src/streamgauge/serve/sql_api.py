"""POST /api/v1/sql: one SELECT over events, streams, series and samples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from streamgauge.errors import BadInput, UnsupportedMedia
from streamgauge.query.requests import SqlFormat, SqlQuery, SqlValue
from streamgauge.serve.answers import QueryAnswer
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.jobs import job_of
from streamgauge.serve.params import quoted, read_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services

PATH = "/api/v1/sql"

MAX_REQUEST_BYTES = 1 << 20
"""A query of at most 128 KiB and its parameters."""

_FORMATS = {
    "application/json": SqlFormat.JSON,
    "application/x-ndjson": SqlFormat.NDJSON,
    "application/ndjson": SqlFormat.NDJSON,
    "application/jsonl": SqlFormat.NDJSON,
    "text/csv": SqlFormat.CSV,
    "application/vnd.apache.arrow.stream": SqlFormat.ARROW,
    "application/vnd.apache.parquet": SqlFormat.PARQUET,
}


class SqlApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(PATH, self.query, ("POST",), takes_form=False, bound=True)]

    async def query(self, request: Request, params: Params) -> Response:
        form = accepted_format(request.headers.get("accept", ""))
        body = await read_body(request, MAX_REQUEST_BYTES, "request")
        text, parameters = _asked(request.headers.get("content-type", ""), body)
        query = SqlQuery(text, form, parameters, self._options.lookback)
        return QueryAnswer(self._services.workers, job_of(request, query, self._options.limits))


def accepted_format(accept: str) -> SqlFormat:
    """The first format of ours that an Accept header names; JSON when it names none but takes anything.

    Raises UnsupportedMedia.
    """
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    for kind in kinds:
        if kind in _FORMATS:
            return _FORMATS[kind]
        if kind in ("", "*/*", "application/*"):
            return SqlFormat.JSON
    raise UnsupportedMedia(f"an answer is given as one of {', '.join(_FORMATS)}, not as {quoted(accept)}")


def _asked(content_type: str, body: bytes) -> tuple[str, tuple[tuple[str, SqlValue], ...]]:
    """The query and its parameters."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/sql", "text/plain"):
        try:
            return body.decode(), ()
        except UnicodeDecodeError:
            raise BadInput("the query is not UTF-8") from None
    if kind and kind != "application/json":
        raise UnsupportedMedia(f"a query is taken as application/json or application/sql, not as {quoted(kind)}")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadInput('the body is not JSON; send {"query": "SELECT …"}, or the query as application/sql') from None
    if not isinstance(asked, dict) or not isinstance(asked.get("query"), str):
        raise BadInput('the body has no "query"; send {"query": "SELECT …", "params": […]}')
    if unknown := sorted(asked.keys() - {"query", "params"}):
        raise BadInput(f"the body has {quoted(unknown[0])}; what is taken is query and params")
    return asked["query"], _parameters(asked.get("params"))


def _parameters(given: Any) -> tuple[tuple[str, SqlValue], ...]:
    if given is None:
        return ()
    if isinstance(given, list):
        named = {str(number): value for number, value in enumerate(given, 1)}
    elif isinstance(given, dict):
        named = given
    else:
        raise BadInput("params is a list, for $1, $2 and so on, or an object, for names such as $level")
    for name, value in named.items():
        if not isinstance(value, str | int | float | bool | None):
            raise BadInput(
                f"the parameter ${name} is a list or an object; what is taken is text, numbers, true, false and null"
            )
    return tuple(named.items())
