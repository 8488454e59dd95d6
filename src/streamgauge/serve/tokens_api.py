"""/api/v1/admin/tokens: making, listing and revoking the tokens of the data folder.

It needs no --enable-admin-api: it takes an administrator's token, or the key that is in the folder's lock. While
nobody is asked for a token, it takes the key alone, or whoever reaches the server could shut everybody else out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamgauge.auth.identity import EVERYBODY
from streamgauge.errors import BadInput
from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import GET_OR_POST, Endpoint, administers, identity_of
from streamgauge.serve.params import quoted
from streamgauge.serve.pins_api import require_key

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.model.token import StoredToken
    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

PATH = "/api/v1/admin/tokens"


class TokensApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        made_of = ("name", "scope", "label", "expires")
        return [
            Endpoint(PATH, self.all, GET_OR_POST, made_of, needs=administers),
            Endpoint(f"{PATH}/{{name}}", self.revoke, ("DELETE",), needs=administers),
        ]

    async def all(self, request: Request, params: Params) -> Response:
        """List them, or make one."""
        self._check(request)
        if request.method != "POST":
            return await json_answer(request, [described(token) for token in self._services.tokens()])
        labels = [parse_label(text) for text in params.all("label")]
        expires = params.time("expires") if params.text("expires") else None
        text, token = await self._services.create_token(params.text("name"), params.all("scope"), labels, expires)
        response = await json_answer(request, {"token": text, **described(token)})
        response.headers["cache-control"] = "no-store"
        return response

    async def revoke(self, request: Request, params: Params) -> Response:
        self._check(request)
        name = request.path_params["name"]
        await self._services.revoke_token(name)
        return await json_answer(request, {"revoked": name})

    def _check(self, request: Request) -> None:
        if identity_of(request) is EVERYBODY:
            require_key(request, self._services)


def parse_label(text: str) -> tuple[str, str]:
    """NAME=VALUE. Raises BadInput."""
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"{quoted(text)} is not NAME=VALUE, such as team=a")
    return name, value


def described(token: StoredToken) -> dict[str, object]:
    """As JSON types; times in seconds."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "labels": dict(token.labels),
        "created": token.created / 1000,
        "expires": None if token.expires is None else token.expires / 1000,
    }
