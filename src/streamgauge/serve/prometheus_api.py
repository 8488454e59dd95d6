"""The Prometheus HTTP API, version 1: everything that a query worker answers, and metadata.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamgauge.errors import BadInput
from streamgauge.query.budget import Limits
from streamgauge.query.requests import (
    FederateQuery,
    FormatQuery,
    InstantQuery,
    LabelNamesQuery,
    LabelValuesQuery,
    ParseQuery,
    Query,
    RangeQuery,
    SeriesQuery,
)
from streamgauge.serve.answers import QueryAnswer, body_answer, json_answer
from streamgauge.serve.endpoint import GET_OR_POST, Endpoint, identity_of
from streamgauge.serve.jobs import job_of
from streamgauge.serve.params import MAX_TIME, MIN_TIME, Params, check_order, quoted, unescape_label_name

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from streamgauge.serve.services import HttpOptions, Services

MAX_POINTS = 11_000
"""Points of one series in a range query, as in Prometheus: a week at one a minute, or a year at one an hour."""

EXPOSITION_TEXT = "text/plain; version=0.0.4; charset=utf-8"

_EVALUATION = ("timeout", "limit", "lookback_delta", "stats")
_RANGE = ("query", "start", "end", "step", *_EVALUATION)
_SELECTION = ("match[]", "start", "end", "limit")


class PrometheusApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options

    def endpoints(self) -> list[Endpoint]:
        v1 = "/api/v1"
        return [
            Endpoint(f"{v1}/query", self.query, GET_OR_POST, ("query", "time", *_EVALUATION), bound=True),
            Endpoint(f"{v1}/query_range", self.query_range, GET_OR_POST, _RANGE, bound=True),
            Endpoint(f"{v1}/query_exemplars", self.query_exemplars, GET_OR_POST, ("query", "start", "end"), bound=True),
            Endpoint(f"{v1}/format_query", self.format_query, GET_OR_POST, ("query",), bound=True),
            Endpoint(f"{v1}/parse_query", self.parse_query, GET_OR_POST, ("query",), bound=True),
            Endpoint(f"{v1}/series", self.series, GET_OR_POST, _SELECTION, bound=True),
            Endpoint(f"{v1}/labels", self.label_names, GET_OR_POST, _SELECTION, bound=True),
            Endpoint(f"{v1}/label/{{name}}/values", self.label_values, params=_SELECTION, bound=True),
            # One name has one description, whoever has series of that name: it is of the whole server.
            Endpoint(f"{v1}/metadata", self.metadata, params=("metric", "limit", "limit_per_metric")),
            Endpoint("/federate", self.federate, params=("match[]", "timestamps"), bound=True),
        ]

    async def query(self, request: Request, params: Params) -> Response:
        time = params.time("time", self._now())
        limit, lookback = params.limit(), self._lookback(params)
        return self._evaluate(request, params, InstantQuery(params.text("query"), time, lookback, limit))

    async def query_range(self, request: Request, params: Params) -> Response:
        limit, lookback = params.limit(), self._lookback(params)
        start, end = params.time("start"), params.time("end")
        check_order(start, end)
        step = params.duration("step")
        if step is None:
            raise BadInput('invalid parameter "step": cannot parse "" to a valid duration')
        if step <= 0:
            raise BadInput('invalid parameter "step": a step is a positive duration of at least 1 ms')
        if (end - start) // step > MAX_POINTS:
            raise BadInput(
                f"exceeded maximum resolution of {MAX_POINTS:,} points per timeseries; increase the step or narrow the "
                "range"
            )
        return self._evaluate(request, params, RangeQuery(params.text("query"), start, end, step, lookback, limit))

    async def query_exemplars(self, request: Request, params: Params) -> Response:
        params.text("query")
        check_order(params.time("start", MIN_TIME), params.time("end", MAX_TIME))
        return await json_answer(request, [])

    async def format_query(self, request: Request, params: Params) -> Response:
        return self._answer(request, FormatQuery(params.text("query")))

    async def parse_query(self, request: Request, params: Params) -> Response:
        return self._answer(request, ParseQuery(params.text("query")))

    async def series(self, request: Request, params: Params) -> Response:
        limit, start, end, matches = _selection(params)
        if not matches:
            raise BadInput("no match[] parameter provided")
        return self._answer(request, SeriesQuery(matches, start, end, limit))

    async def label_names(self, request: Request, params: Params) -> Response:
        limit, start, end, matches = _selection(params)
        return self._answer(request, LabelNamesQuery(matches, start, end, limit))

    async def label_values(self, request: Request, params: Params) -> Response:
        name = unescape_label_name(request.path_params["name"])
        limit, start, end, matches = _selection(params)
        return self._answer(request, LabelValuesQuery(name, matches, start, end, limit))

    async def metadata(self, request: Request, params: Params) -> Response:
        limit, per_metric = _whole_number(params, "limit"), _whole_number(params, "limit_per_metric")
        wanted = params.text("metric")
        found: dict[str, list[dict[str, str]]] = {}
        for known in self._services.metadata():
            if wanted and known.metric != wanted:
                continue
            if known.metric not in found and 0 <= limit <= len(found):
                continue
            entries = found.setdefault(known.metric, [])
            if not 0 < per_metric <= len(entries):
                entries.append({"type": known.type, "help": known.help, "unit": known.unit})
        return await json_answer(request, found)

    async def federate(self, request: Request, params: Params) -> Response:
        matches = params.all("match[]")
        if not matches:
            return await body_answer(request, b"", EXPOSITION_TEXT)
        known = () if identity_of(request).bound else self._services.metadata()
        types = tuple((each.metric, each.type) for each in known)
        options = self._options
        utf8 = _takes_utf8_names(request.headers.get("accept", ""))
        pushed = options.pushed
        if pushed is not None and params.flag("timestamps"):
            pushed = replace(pushed, timestamps=True)
        return self._answer(
            request, FederateQuery(matches, self._now(), options.lookback, types, options.external_labels, utf8, pushed)
        )

    def _evaluate(self, request: Request, params: Params, query: InstantQuery | RangeQuery) -> Response:
        return self._answer(request, query, self._limits(params), stats=bool(params.text("stats")))

    def _answer(self, request: Request, query: Query, limits: Limits | None = None, stats: bool = False) -> Response:
        job = job_of(request, query, limits or self._options.limits, stats=stats)
        return QueryAnswer(self._services.workers, job)

    def _limits(self, params: Params) -> Limits:
        timeout = params.duration("timeout")
        if timeout is None:
            return self._options.limits
        if timeout <= 0:
            raise BadInput('invalid parameter "timeout": a timeout is a positive duration')
        return replace(self._options.limits, seconds=min(timeout / 1000, self._options.limits.seconds))

    def _lookback(self, params: Params) -> int:
        lookback = params.duration("lookback_delta")
        if lookback is not None and lookback < 0:
            raise BadInput('invalid parameter "lookback_delta": it cannot be negative')
        return lookback or self._options.lookback

    def _now(self) -> int:
        return self._services.clock.now_ms()


def _selection(params: Params) -> tuple[int, int, int, tuple[str, ...]]:
    limit = params.limit()
    start, end = params.time("start", MIN_TIME), params.time("end", MAX_TIME)
    check_order(start, end)
    return limit, start, end, params.all("match[]")


def _takes_utf8_names(accept: str) -> bool:
    """Whether a scraper takes names that are no identifiers in the text format, as Prometheus 3 says that it does."""
    for kind in accept.lower().split(","):
        media, *parameters = (part.strip() for part in kind.split(";"))
        if media == "text/plain" and "escaping=allow-utf-8" in parameters:
            return True
    return False


def _whole_number(params: Params, name: str) -> int:
    """-1 where the parameter is absent: 0 asks for none."""
    text = params.text(name)
    if not text:
        return -1
    try:
        return int(text)
    except ValueError:
        raise BadInput(f"{name} must be a number, not {quoted(text)}") from None
