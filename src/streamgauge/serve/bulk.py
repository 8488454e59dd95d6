"""POST /api/v1/import: samples in bulk, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import Endpoint, identity_of, writes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

PATH = "/api/v1/import"


class BulkApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(PATH, self.store, ("POST",), takes_form=False, needs=writes, bound=True)]

    async def store(self, request: Request, params: Params) -> Response:
        bound = identity_of(request).bound
        return await json_answer(request, await self._services.bulk_import(request.headers, request.stream(), bound))
