"""/api/v1/admin: deleting series, as Prometheus does, and events. Refused unless the admin API is enabled.

https://prometheus.io/docs/prometheus/latest/querying/api/#tsdb-admin-apis
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.errors import BadInput
from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import CHANGE, Endpoint, administers
from streamgauge.serve.params import MAX_TIME, MIN_TIME, check_order

if TYPE_CHECKING:
    from starlette.requests import Request

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

MAX_SELECTORS = 100
"""Of one deletion. Each is matched against all series where blocks are written, and a flush waits for that."""


class DeletionApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        tsdb = "/api/v1/admin/tsdb"
        range_of_series = ("match[]", "start", "end")
        return [
            Endpoint(
                f"{tsdb}/delete_series", self.delete_series, CHANGE, range_of_series, admin=True, needs=administers
            ),
            Endpoint(f"{tsdb}/clean_tombstones", self.clean_tombstones, CHANGE, admin=True, needs=administers),
            Endpoint(
                "/api/v1/admin/events/delete", self.delete_events, CHANGE, ("where",), admin=True, needs=administers
            ),
        ]

    async def delete_series(self, request: Request, params: Params) -> Response:
        matches = params.all("match[]")
        if not matches:
            raise BadInput("no match[] parameter provided")
        if len(matches) > MAX_SELECTORS:
            raise BadInput(f"one deletion takes at most {MAX_SELECTORS} match[], not {len(matches)}: send several")
        start, end = params.time("start", MIN_TIME), params.time("end", MAX_TIME)
        check_order(start, end)
        await self._services.delete_series(matches, start, end)
        return Response(status_code=204)

    async def delete_events(self, request: Request, params: Params) -> Response:
        condition = params.text("where")
        if not condition:
            raise BadInput("no where parameter provided: a condition on events, as SQL has it after WHERE")
        return await json_answer(request, {"events": await self._services.delete_events(condition)})

    async def clean_tombstones(self, request: Request, params: Params) -> Response:
        await self._services.clean_tombstones()
        return Response(status_code=204)
