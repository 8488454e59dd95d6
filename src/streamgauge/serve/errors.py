"""How a request fails: one envelope for every API, one line of text for everything else.

    {"status": "error", "errorType": "bad_data", "error": "a sentence"}

The stats API of relays has an envelope of its own, {"error": "a sentence"} and a line end.
Remote write and read, federation, probes and the page answer in text, as Prometheus does.
"""

from __future__ import annotations

import json
import logging

from starlette.exceptions import HTTPException
from starlette.responses import Response

from streamgauge.errors import Busy, StreamgaugeError, Unauthorized

logger = logging.getLogger(__name__)

API = "/api/"
POST_ALONE = frozenset({"/authorize"})
"""Paths whose clients get 404 for other methods, as the reference has no route for these."""
STATS_API = "/pulse/"
TEXT_APIS = frozenset({"/api/v1/write", "/api/v1/read"})
HIDDEN = "internal error; the server's log says more"


def wants_envelope(path: str) -> bool:
    return path.startswith(API) and path not in TEXT_APIS


def failure(path: str, error: BaseException) -> Response:
    """The answer to a request of `path` that failed with `error`.

    Of Starlette's exceptions the router raises two, 404 and 405. The message of any other foreign error is logged and
    not shown.
    """
    if isinstance(error, StreamgaugeError):
        headers = {}
        if isinstance(error, Busy) and error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        answer = _answer(path, error.status, error.kind, error.message, headers)
        if isinstance(error, Unauthorized):
            for challenge in error.challenges:  # a line for each: Chromium looks at the first of a line only
                answer.headers.append("www-authenticate", challenge)
        return answer
    if isinstance(error, HTTPException) and error.status_code == 404:
        return _answer(path, 404, "not_found", "there is nothing at this path", {})
    if isinstance(error, HTTPException) and error.status_code == 405 and path in POST_ALONE:
        return _answer(path, 404, "not_found", "404 page not found", {})
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        return _answer(path, 405, "bad_data", f"this path takes {allowed}", {"allow": allowed})
    logger.error("request of %s failed", path, exc_info=error)
    return _answer(path, 500, "internal", HIDDEN, {})


def _answer(path: str, status: int, kind: str, message: str, headers: dict[str, str]) -> Response:
    if wants_envelope(path):
        body = json.dumps({"status": "error", "errorType": kind, "error": message}, ensure_ascii=False)
        return Response(body, status, headers, "application/json")
    if path.startswith(STATS_API):
        return Response(json.dumps({"error": message}, ensure_ascii=False) + "\n", status, headers, "application/json")
    headers["x-content-type-options"] = "nosniff"
    return Response(f"{message}\n", status, headers, "text/plain; charset=utf-8")
