"""/api/v1/admin/tsdb/snapshot: a data folder of its own, beside the one that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamgauge.errors import BadInput
from streamgauge.serve.answers import json_answer
from streamgauge.serve.endpoint import CHANGE, Endpoint, administers
from streamgauge.serve.params import quoted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services

_TRUTH = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("", "0", "f", "F", "false", "FALSE", "False"), False),
}
"""What Prometheus takes for true and false: the words of Go's strconv.ParseBool, and none."""


class SnapshotApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        path = "/api/v1/admin/tsdb/snapshot"
        return [Endpoint(path, self.snapshot, CHANGE, params=("skip_head",), admin=True, needs=administers)]

    async def snapshot(self, request: Request, params: Params) -> Response:
        word = params.text("skip_head")
        if word not in _TRUTH:
            raise BadInput(f'invalid parameter "skip_head": {quoted(word)} is neither true nor false')
        return await json_answer(request, {"name": await self._services.folder_snapshot(_TRUTH[word])})
