"""The past of hosts under /telemetry/: what dashboards of reverse proxies ask for, of any age that the store has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from streamgauge.errors import BadInput
from streamgauge.model.host_history import DAY_MS, DEFAULT_RANGE, MINUTE_MS, range_of
from streamgauge.query.hosts.history import HostHistoryQuery, HostNamesQuery
from streamgauge.query.requests import HistoryQuery
from streamgauge.serve.answers import QueryAnswer
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.jobs import job_of
from streamgauge.serve.params import check_order

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services

PREFIX = "/telemetry"
MAX_POINTS = 11_000
"""Of an answer, as range queries of Prometheus have at most."""
DEFAULT_POINTS = 100


class HostHistoryApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        history = ("host", "range", "start", "end", "step")
        return [
            Endpoint(f"{PREFIX}/history", self.history, params=history, bound=True),
            Endpoint(f"{PREFIX}/hosts", self.hosts, params=("start", "end"), bound=True),
        ]

    async def history(self, request: Request, params: Params) -> Response:
        host = params.text("host")
        if not host:
            raise BadInput("host parameter required")
        chosen = any(params.text(name) for name in ("start", "end", "step"))
        if chosen and params.text("range"):
            raise BadInput("ask for a range, or for start, end and step")
        query = self._between(host, params) if chosen else self._range(host, params)
        return self._answer(request, query)

    def _range(self, host: str, params: Params) -> HostHistoryQuery:
        asked = range_of(params.text("range") or DEFAULT_RANGE)
        now = self._services.clock.now_ms()
        return HostHistoryQuery(host, asked.label, now - asked.length, now, asked.resolution)

    def _between(self, host: str, params: Params) -> HostHistoryQuery:
        end = params.time("end", self._services.clock.now_ms())
        start = params.time("start", end - DAY_MS)
        check_order(start, end)
        step = params.duration("step")
        if step is None:
            step = max(-(-(end - start) // DEFAULT_POINTS // MINUTE_MS) * MINUTE_MS, MINUTE_MS)
        if step <= 0:
            raise BadInput('invalid parameter "step": it must be longer than 0')
        if (end - start) // step > MAX_POINTS:
            raise BadInput(f'invalid parameter "step": more than {MAX_POINTS} samples; ask for a longer step')
        return HostHistoryQuery(host, f"{_moment(start)}/{_moment(end)}", start - 1, end, step)

    async def hosts(self, request: Request, params: Params) -> Response:
        end = params.time("end", self._services.clock.now_ms())
        start = params.time("start", end - DAY_MS)
        check_order(start, end)
        return self._answer(request, HostNamesQuery(start - 1, end))

    def _answer(self, request: Request, query: HostHistoryQuery | HostNamesQuery) -> Response:
        asked = HistoryQuery(query, fails_in_text=True)
        return QueryAnswer(self._services.workers, job_of(request, asked, self._options.limits))


def _moment(time: int) -> str:
    """As RFC 3339 to the second, or in seconds where that has no word for it."""
    seconds = time // 1000
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
