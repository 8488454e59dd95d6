"""What an administrator asks of the running server: cancel a query, load the configuration again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from streamgauge.auth.identity import Permission
from streamgauge.errors import ConfigError, NotFound
from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import CHANGE, Endpoint, administers, identity_of
from streamgauge.serve.jobs import queries_of
from streamgauge.serve.params import quoted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services


class AdminApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("/api/v1/admin/queries/{id}/cancel", self.cancel, ("POST", "DELETE"), bound=True),
            Endpoint("/-/reload", self.reload, CHANGE, needs=administers),
        ]

    async def cancel(self, request: Request, params: Params) -> Response:
        text = request.path_params["id"]
        number = int(text) if text.isdecimal() and len(text) < 19 else -1
        if not self._may_cancel(request, number) or not self._services.workers.cancel(number):
            raise NotFound(f"no query {quoted(text)} is running; /api/v1/status/queries lists those that are")
        return await json_answer(request, {"cancelled": number})

    def _may_cancel(self, request: Request, number: int) -> bool:
        """One's own queries, and as an administrator all."""
        identity = identity_of(request)
        return any(
            query.id == number and (Permission.ADMIN in identity.permissions or query.sender == identity.name)
            for query in queries_of(request, self._services.workers)
        )

    async def reload(self, request: Request, params: Params) -> Response:
        try:
            await self._services.reload()
        except ConfigError as error:
            # 500, as Prometheus answers: tools that reload look for it.
            return PlainTextResponse(f"failed to reload config: {error.message}\n", 500)
        return PlainTextResponse("")
