"""POST /authorize: a client that may push for a cluster gets a token for its uploads."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from starlette.responses import Response

from streamgauge.auth.cluster_authority import MAX_ID_BYTES
from streamgauge.errors import BadInput, TooLarge
from streamgauge.serve.endpoint import Endpoint, is_open
from streamgauge.serve.params import read_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

PATH = "/authorize"
MAX_FORM_BYTES = 4096
VERSION = 1  # of the answer

_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)


class AuthorizeApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(PATH, self.authorize, ("POST",), ("id",), takes_form=False, needs=is_open)]

    async def authorize(self, request: Request, params: Params) -> Response:
        access = self._services.cluster_access
        cluster = await _cluster(request)
        grant = await access.authorize(_authorization(request), cluster)
        answer = {
            "version": VERSION,
            "token": grant.token,
            "expiresInSeconds": grant.seconds,
            "labels": grant.labels,
        }
        body = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
        return Response(body, media_type="text/plain", headers={"cache-control": "no-store"})


def _authorization(request: Request) -> str | None:
    """The one header that there may be."""
    values = request.headers.getlist("authorization")
    return values[0] if len(values) == 1 else None


async def _cluster(request: Request) -> str:
    """The parameter `id`, of the form if it has one, or else of the URL. Raises BadInput."""
    fields = []
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        try:
            fields += _fields((await read_body(request, MAX_FORM_BYTES, "form")).decode("latin-1"))
        except TooLarge:
            raise BadInput("http: request body too large") from None
    fields += _fields(request.scope["query_string"].decode("latin-1"))
    cluster = next((value for name, value in fields if name == "id"), "")
    if not cluster:
        raise BadInput("The 'id' parameter must be specified via URL or url-encoded form body")
    if len(cluster.encode()) > MAX_ID_BYTES:
        raise BadInput(f"the id of a cluster has at most {MAX_ID_BYTES} bytes")
    return cluster


def _fields(form: str) -> list[tuple[str, str]]:
    """Names and values as Go reads them, in order. Raises BadInput for what it refuses."""
    fields = []
    for field in filter(None, form.split("&")):
        if ";" in field:
            raise BadInput("invalid semicolon separator in query")
        name, _, value = field.partition("=")
        fields.append((_unescaped(name), _unescaped(value)))
    return fields


def _unescaped(text: str) -> str:
    if bad := _BAD_ESCAPE.search(text):
        raise BadInput(f"invalid URL escape {json.dumps(bad[0], ensure_ascii=False)}")
    try:
        return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise BadInput("a parameter is not UTF-8") from None
