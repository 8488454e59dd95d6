"""/api/v1/admin/pins: blocks stay on the disk while `streamgauge backup` copies them.

It is not for everybody who reaches the listener, and needs no --enable-admin-api either: it takes a key that is in the
data folder's lock. Who may read that may read all that a pin keeps.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from streamgauge.errors import Forbidden
from streamgauge.model.token import KEY_HEADER
from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import Endpoint, administers

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

PATH = "/api/v1/admin/pins"


class PinsApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(PATH, self.take, ("POST",), needs=administers),
            Endpoint(f"{PATH}/{{id}}", self.one, ("POST", "DELETE"), needs=administers),
        ]

    async def take(self, request: Request, params: Params) -> Response:
        self._require_key(request)
        return await json_answer(request, dict(await self._services.pin()))

    async def one(self, request: Request, params: Params) -> Response:
        """Renew it, or end it."""
        self._require_key(request)
        pin = request.path_params["id"]
        if request.method == "DELETE":
            self._services.unpin(pin)
        else:
            self._services.renew_pin(pin)
        return await json_answer(request, {})

    def _require_key(self, request: Request) -> None:
        require_key(request, self._services)


def require_key(request: Request, services: Services) -> None:
    """Raises Forbidden for a request without the key of the data folder's lock."""
    given, expected = request.headers.get(KEY_HEADER, ""), services.folder_key
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise Forbidden(f"this needs the key that is in the data folder's lock, in the header {KEY_HEADER}")
