"""/api/v1/status: what the server is, how it is configured and what it holds; and the parts of the Prometheus API that
have nothing to tell yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from streamgauge import __version__
from streamgauge.durations import format_duration
from streamgauge.errors import BadInput
from streamgauge.query.requests import CardinalityQuery, Job
from streamgauge.serve.answers import QueryAnswer, accepted_encoding, json_answer
from streamgauge.serve.endpoint import Endpoint, Handler

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services

PROMETHEUS_VERSION = "3.5.0"
"""The Prometheus whose API this is. Clients choose by it which endpoints and functions they use."""

MAX_CARDINALITY = 10_000

_EMPTY: dict[str, tuple[object, tuple[str, ...]]] = {
    "rules": ({"groups": []}, ("type", "rule_name[]", "rule_group[]", "file[]", "exclude_alerts", "match[]")),
    "alerts": ({"alerts": []}, ()),
    "alertmanagers": ({"activeAlertmanagers": [], "droppedAlertmanagers": []}, ()),
    "notifications": ([], ()),
}


class StatusApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        status = "/api/v1/status"
        return [
            Endpoint(f"{status}/config", self.config),
            Endpoint(f"{status}/flags", self.flags),
            Endpoint(f"{status}/runtimeinfo", self.runtimeinfo),
            Endpoint(f"{status}/buildinfo", self.buildinfo),
            Endpoint(f"{status}/tsdb", self.tsdb, params=("limit",)),
            Endpoint(f"{status}/walreplay", self.walreplay, while_starting=True),
            Endpoint(f"{status}/queries", self.queries),
            Endpoint(f"{status}/inspect", self.inspect, params=("limit",)),
            Endpoint(f"{status}/limits", self.limits),
            Endpoint(f"{status}/check", self.check, ("POST",)),  # it reads everything: no link may start it
            *(Endpoint(f"/api/v1/{name}", _always(data), params=params) for name, (data, params) in _EMPTY.items()),
        ]

    async def config(self, request: Request, params: Params) -> Response:
        return await json_answer(request, {"yaml": self._services.config_yaml()})

    async def flags(self, request: Request, params: Params) -> Response:
        return await json_answer(request, dict(self._services.flags()))

    async def runtimeinfo(self, request: Request, params: Params) -> Response:
        services = self._services
        numbers, config = services.store_numbers(), services.config_numbers()
        return await json_answer(
            request,
            {
                "startTime": rfc3339(services.started_at),
                "CWD": os.getcwd(),
                "hostname": socket.gethostname(),
                "serverTime": rfc3339(services.clock.now_ms()),
                "reloadConfigSuccess": config.reloaded,
                "lastConfigTime": rfc3339(config.loaded_at),
                "corruptionCount": numbers.damaged,
                "storageRetention": format_duration(numbers.retention) if numbers.retention else "",
                "headSeries": numbers.head_series,
                "samplesAppended": numbers.samples_appended,
            },
        )

    async def buildinfo(self, request: Request, params: Params) -> Response:
        # No "features": by its presence, even empty, Grafana takes a server for Mimir.
        return await json_answer(
            request,
            {
                "version": PROMETHEUS_VERSION,
                "revision": "",
                "branch": "",
                "buildUser": "",
                "buildDate": "",
                "goVersion": "",
                "product": "streamgauge",
                "productVersion": __version__,
            },
        )

    async def tsdb(self, request: Request, params: Params) -> Response:
        job = Job(CardinalityQuery(_entries(params)), self._options.limits, accepted_encoding(request))
        return QueryAnswer(self._services.workers, job)

    async def walreplay(self, request: Request, params: Params) -> Response:
        replay = self._services.replay()
        state = "done" if replay.done else "in progress"
        return await json_answer(request, {"min": 0, "max": replay.total, "current": replay.current, "state": state})

    async def queries(self, request: Request, params: Params) -> Response:
        running = [
            {
                "id": query.id,
                "query": query.text,
                "started": rfc3339(query.started),
                "state": query.state,
                "worker": query.worker,
            }
            for query in self._services.workers.running()
        ]
        return await json_answer(request, {"queries": running})

    async def inspect(self, request: Request, params: Params) -> Response:
        return await json_answer(request, _plain(await self._services.inspect(_entries(params))))

    async def limits(self, request: Request, params: Params) -> Response:
        return await json_answer(request, _plain(self._services.limits()))

    async def check(self, request: Request, params: Params) -> Response:
        return await json_answer(request, _plain(await self._services.check()))


def _entries(params: Params) -> int:
    """How many entries of each list of a cardinality are asked for."""
    limit = params.limit() if params.text("limit") else 10
    if not 1 <= limit <= MAX_CARDINALITY:
        raise BadInput(f'invalid parameter "limit": it is a number from 1 to {MAX_CARDINALITY}')
    return limit


def _plain(mapping: Mapping[str, object]) -> dict[str, object]:
    return dict(mapping)


def _always(data: object) -> Handler:
    async def answer(request: Request, params: Params) -> Response:
        return await json_answer(request, data)

    return answer


def rfc3339(time: int) -> str:
    """A time in ms as text, in UTC."""
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
