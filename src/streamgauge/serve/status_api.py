"""/api/v1/status: what the server is, how it is configured and what it holds; and the parts of the Prometheus API that
have nothing to tell yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from streamgauge import __version__
from streamgauge.durations import format_duration, format_size
from streamgauge.errors import BadInput
from streamgauge.query.requests import CardinalityQuery, GroupBy, GrowthQuery, Order
from streamgauge.serve.answers import QueryAnswer, json_answer
from streamgauge.serve.endpoint import GET_OR_POST, Endpoint, Handler, administers
from streamgauge.serve.jobs import job_of, queries_of
from streamgauge.serve.params import quoted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, Services, StoreNumbers

PROMETHEUS_VERSION = "3.5.0"
"""The Prometheus whose API this is. Clients choose by it which endpoints and functions they use."""

MAX_CARDINALITY = 10_000
MAX_BUCKETS = 240
MAX_LABELS = 10
"""Labels whose values together make a group: more of them tell almost every series from the others."""
DEFAULT_SINCE = 3_600_000

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
            Endpoint(f"{status}/buildinfo", self.buildinfo, bound=True),
            Endpoint(f"{status}/tsdb", self.tsdb, params=("limit",), bound=True),
            Endpoint(
                f"{status}/cardinality",
                self.cardinality,
                GET_OR_POST,
                ("match[]", "by", "since", "end", "idle", "order", "buckets", "limit"),
                bound=True,
            ),
            Endpoint(f"{status}/walreplay", self.walreplay, while_starting=True),
            Endpoint(f"{status}/queries", self.queries, bound=True),
            Endpoint(f"{status}/inspect", self.inspect, params=("limit",)),
            Endpoint(f"{status}/limits", self.limits),
            Endpoint(
                f"{status}/check", self.check, ("POST",), needs=administers
            ),  # it reads everything: no link may start it
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
                "storageRetention": _retention(numbers),
                "headSeries": numbers.head_series,
                "samplesAppended": numbers.samples_appended,
                "lastEventTime": rfc3339(numbers.last_event) if numbers.last_event else None,
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
        job = job_of(request, CardinalityQuery(_entries(params)), self._options.limits)
        return QueryAnswer(self._services.workers, job)

    async def cardinality(self, request: Request, params: Params) -> Response:
        job = job_of(request, self._growth(params), self._options.limits)
        return QueryAnswer(self._services.workers, job)

    def _growth(self, params: Params) -> GrowthQuery:
        end = params.time("end", self._services.clock.now_ms())
        by, names = grouping(params.text("by") or "metric")
        since = _positive(params, "since", DEFAULT_SINCE)
        idle = _positive(params, "idle", self._options.lookback)
        order = params.text("order") or Order.SERIES.value
        if order not in {one.value for one in Order}:
            orders = ", ".join(one.value for one in Order)
            raise BadInput(f'invalid parameter "order": {quoted(order)} is not one of {orders}')
        buckets = params.limit("buckets") if params.text("buckets") else 24
        if not 1 <= buckets <= MAX_BUCKETS:
            raise BadInput(f'invalid parameter "buckets": it is a number from 1 to {MAX_BUCKETS}')
        return GrowthQuery(
            params.all("match[]"), end - since, end, idle, by, names, Order(order), buckets, _entries(params)
        )

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
            for query in queries_of(request, self._services.workers)
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


def _retention(numbers: StoreNumbers) -> str:
    """As Prometheus words it: "15d", "512MB", "15d or 512MB"."""
    age = [format_duration(numbers.retention)] if numbers.retention else []
    size = [format_size(numbers.retention_bytes)] if numbers.retention_bytes else []
    return " or ".join(age + size)


def grouping(text: str) -> tuple[GroupBy, tuple[str, ...]]:
    """What `by` asks for: label, pair, or names of labels between commas, of which metric is `__name__`."""
    if text in (GroupBy.LABEL.value, GroupBy.PAIR.value):
        return GroupBy(text), ()
    names = tuple(dict.fromkeys("__name__" if name == "metric" else name for name in text.split(",")))
    if not all(names):
        raise BadInput(f'invalid parameter "by": {quoted(text)} names no label before or behind a comma')
    if len(names) > MAX_LABELS:
        raise BadInput(f'invalid parameter "by": it names at most {MAX_LABELS} labels')
    return GroupBy.VALUES, names


def _positive(params: Params, name: str, default: int) -> int:
    duration = params.duration(name)
    if duration is None:
        return default
    if duration <= 0:
        raise BadInput(f'invalid parameter "{name}": it is a duration of at least 1 ms')
    return duration


def _plain(mapping: Mapping[str, object]) -> dict[str, object]:
    return dict(mapping)


def _always(data: object) -> Handler:
    async def answer(request: Request, params: Params) -> Response:
        return await json_answer(request, data)

    return answer


def rfc3339(time: int) -> str:
    """A time in ms as text, in UTC."""
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
