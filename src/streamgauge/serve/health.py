"""Probes, and the server's own metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from streamgauge.errors import NotReady
from streamgauge.serve.answers import body_answer
from streamgauge.serve.endpoint import Endpoint, is_open
from streamgauge.serve.prometheus_api import EXPOSITION_TEXT

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import Services


class Health:
    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("/-/healthy", self.healthy, while_starting=True, needs=is_open),
            Endpoint("/-/ready", self.ready, while_starting=True, needs=is_open),
            Endpoint("/metrics", self.metrics, while_starting=True),
        ]

    async def healthy(self, request: Request, params: Params) -> Response:
        return PlainTextResponse("streamgauge is healthy.\n")

    async def ready(self, request: Request, params: Params) -> Response:
        check_ready(self._services)
        return PlainTextResponse("streamgauge is ready.\n")

    async def metrics(self, request: Request, params: Params) -> Response:
        return await body_answer(request, self._services.metrics_text(), EXPOSITION_TEXT)


def check_ready(services: Services) -> None:
    """Raise NotReady until what is on disk has been read."""
    replay = services.replay()
    if not replay.done:
        raise NotReady(f"the server is starting: {replay.current} of {replay.total} of its log is read", retry_after=1)
