"""The stats API of relays: what they said last, by the hour and by the time of the day, for programs made for Pulse.

All series that have the label `host` belong to it: those of relays do, and nothing need be remembered of which these
are. It is under /pulse/ on the main listener, and at the root of one of its own where that is configured.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Collection
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from streamgauge.auth.identity import Permission
from streamgauge.errors import BadInput, NotFound, Unauthorized
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.query.requests import HistoryQuery, LabelNamesQuery, LabelValuesQuery, Query
from streamgauge.query.stats import MAX_ALTERNATIVES, MAX_BUCKETS, RAW, VERBS, Period, StatsQuery
from streamgauge.serve.endpoint import GET, Endpoint
from streamgauge.serve.jobs import job_of
from streamgauge.serve.params import quoted, read_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from streamgauge.serve.params import Params
    from streamgauge.serve.services import HttpOptions, RelayControl, Services

PREFIX = "/pulse"
TOKEN_HEADER, TOKEN_PARAMETER = "x-auth-token", "x-auth-token"
MAX_BODY_BYTES = 65_536
WEEK_MS = 7 * 86_400_000

_OF_RELAYS = ('{host!=""}',)
_BACK = re.compile(r"(\d{1,15})(u|ms|s|m|h|d|w)", re.ASCII)
_UNITS_US = {
    "u": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_DEFAULT_START = {Period.HOURLY: "1d", Period.DAILY: "7d"}
_ALERTS = "alerts of the stats API are not evaluated by this version"


class StatsAccess:
    """Who may call: whoever shows the configured token; where there is none, whoever may read this server."""

    def __init__(self, options: HttpOptions) -> None:
        self._token = "" if options.relay is None else options.relay.token

    def reads(self, request: Request) -> Permission | None:
        return None if self._shown(request) else Permission.READ

    def writes(self, request: Request) -> Permission | None:
        """The token is for reading: who has relays do something needs the permission, too."""
        self._shown(request)
        return Permission.WRITE

    def fits(self, token: str) -> bool:
        return not self._token or hmac.compare_digest(token.encode(), self._token.encode())

    def _shown(self, request: Request) -> bool:
        """Whether there is a token, which was shown. Raises Unauthorized."""
        if not self.fits(token_of(request)):
            raise Unauthorized("the token in X-AUTH-TOKEN, or in the parameter x-auth-token, is missing or wrong")
        return bool(self._token)


def token_of(request: Request) -> str:
    """The one that is shown to the stats API; "" for none."""
    return request.headers.get(TOKEN_HEADER) or request.query_params.get(TOKEN_PARAMETER) or ""


class StatsApi:
    def __init__(self, services: Services, options: HttpOptions) -> None:
        self._services = services
        self._options = options
        self.access = StatsAccess(options)

    def endpoints(self) -> list[Endpoint]:
        reads, writes = self.access.reads, self.access.writes
        return [
            Endpoint(f"{PREFIX}/ping", self.ping, needs=reads),
            Endpoint(f"{PREFIX}/keys", self.keys, needs=reads),
            Endpoint(f"{PREFIX}/tags", self.tags, needs=reads),
            Endpoint(f"{PREFIX}/latest/{{stat:path}}", self.latest, needs=reads),
            Endpoint(f"{PREFIX}/hourly/{{stat:path}}", self.hourly, needs=reads),
            Endpoint(f"{PREFIX}/daily/{{stat:path}}", self.daily, needs=reads),
            Endpoint(f"{PREFIX}/daily_peaks/{{stat:path}}", self.daily, needs=reads),
            Endpoint(f"{PREFIX}/override", self.override, ("POST",), takes_form=False, needs=writes),
            Endpoint(f"{PREFIX}/flush", self.flush, ("POST",), takes_form=False, needs=writes),
            Endpoint(f"{PREFIX}/alerts", self.alerts, (*GET, "POST", "PUT"), takes_form=False, needs=writes),
            Endpoint(f"{PREFIX}/alerts/{{id}}", self.alerts, (*GET, "DELETE"), takes_form=False, needs=writes),
        ]

    async def ping(self, request: Request, params: Params) -> Response:
        return Response("pong\n", media_type="text/plain")

    async def keys(self, request: Request, params: Params) -> Response:
        now = self._services.clock.now_ms()
        start = now - self._settings.retention * WEEK_MS
        return await self._names(request, LabelValuesQuery("__name__", _OF_RELAYS, start, now))

    async def tags(self, request: Request, params: Params) -> Response:
        now = self._services.clock.now_ms()
        return await self._names(request, LabelNamesQuery(_OF_RELAYS, now - self._settings.retention * WEEK_MS, now))

    async def latest(self, request: Request, params: Params) -> Response:
        now, poll = self._services.clock.now_ms(), round(self._settings.poll * 1000)
        verb = _verb(request, (*VERBS, RAW))
        filters = _filters(request, {"verb"})
        query = StatsQuery(_stat(request), Period.LATEST, verb, filters, now, now - 2 * poll, now, poll)
        return await self._stats(request, query)

    async def hourly(self, request: Request, params: Params) -> Response:
        return await self._aggregated(request, Period.HOURLY)

    async def daily(self, request: Request, params: Params) -> Response:
        return await self._aggregated(request, Period.DAILY)

    async def _aggregated(self, request: Request, period: Period) -> Response:
        now, interval = self._services.clock.now_ms(), self._settings.aggregate * 60_000
        start = now - min(_back(request, "start", _DEFAULT_START[period]), self._settings.retention * WEEK_MS)
        end = now - _back(request, "stop", "0s")
        backfill = _backfill(request)
        if backfill is not None and (end - start) // min(interval, 3_600_000) > MAX_BUCKETS:
            raise BadInput(f"backfill would fill more than {MAX_BUCKETS} values: ask for less with start")
        filters = _filters(request, {"verb", "start", "stop", "backfill"})
        verb = _verb(request, VERBS)
        query = StatsQuery(_stat(request), period, verb, filters, now, start, end, interval, backfill)
        return await self._stats(request, query)

    async def override(self, request: Request, params: Params) -> Response:
        seconds, intervals = _override(await read_body(request, MAX_BODY_BYTES, "override"))
        return _json({"relays": self._control.override(seconds, intervals)})

    async def flush(self, request: Request, params: Params) -> Response:
        await read_body(request, MAX_BODY_BYTES, "body")
        return _json({"relays": self._control.flush()})

    async def alerts(self, request: Request, params: Params) -> Response:
        return _json({"error": _ALERTS}, 501)

    @property
    def _settings(self) -> RelaySettings:
        if self._options.relay is None:
            raise NotFound("relays are not configured; a section relay: in the configuration does that")
        return self._options.relay

    @property
    def _control(self) -> RelayControl:
        control = self._services.relays
        if control is None:
            raise NotFound("relays are not configured; a section relay: in the configuration does that")
        return control

    async def _stats(self, request: Request, query: StatsQuery) -> Response:
        body = await self._answer(request, query)
        if not body:
            return _json({"error": "Not Found"}, 404)
        return Response(body, media_type="application/json")

    async def _names(self, request: Request, query: LabelNamesQuery | LabelValuesQuery) -> Response:
        names = json.loads(await self._answer(request, query))["data"]
        return _json([name for name in names if name != "__name__"])

    async def _answer(self, request: Request, query: Query | StatsQuery) -> bytes:
        """The whole answer, which is small. Raises BadInput and the like where the worker says that it has none."""
        asked = HistoryQuery(query) if isinstance(query, StatsQuery) else query
        answer = await self._services.workers.run(job_of(request, asked, self._options.limits, "identity"))
        async with aclosing(answer.chunks) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        if answer.status != 200:
            raise _Failed(answer.status, json.loads(body)["error"])
        return body


class _Failed(BadInput):
    """What a worker answered in place of an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _json(value: object, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    return Response(body, status, media_type="application/json")


def _stat(request: Request) -> str:
    return str(request.path_params["stat"])


def _verb(request: Request, allowed: Collection[str]) -> str:
    verb = request.query_params.get("verb", "mean")
    if verb not in allowed:
        raise BadInput(f'invalid parameter "verb": {quoted(verb)} is not one of {", ".join(allowed)}')
    return verb


def _back(request: Request, name: str, default: str) -> int:
    """How far back from now, in ms."""
    text = request.query_params.get(name, default)
    match = _BACK.fullmatch(text)
    if match is None:
        raise BadInput(f'invalid parameter "{name}": {quoted(text)} is no whole number of u, ms, s, m, h, d or w')
    return int(match[1]) * _UNITS_US[match[2]] // 1000


def _backfill(request: Request) -> float | None:
    """What fills empty buckets: a number, or 0 where that is none."""
    text = request.query_params.get("backfill")
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if abs(value) < float("inf") else 0.0


def _filters(request: Request, reserved: set[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The tags that are asked for, each with all the values that it may have."""
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in reserved and name.lower() != TOKEN_PARAMETER:
            found.setdefault(name, []).append(value)
    alternatives = 1
    for values in found.values():
        alternatives *= len(values)
    if alternatives > MAX_ALTERNATIVES:
        raise BadInput(f"the tags have {alternatives} combinations of values; the limit is {MAX_ALTERNATIVES}")
    return tuple((name, tuple(values)) for name, values in found.items())


def _override(body: bytes) -> tuple[float, dict[str, float]]:
    """For how many seconds, and the seconds between two collections by collector. Raises BadInput."""
    try:
        given = json.loads(body)
        seconds, intervals = given["seconds"], given["collectors"]
        numbers = [seconds, *intervals.values()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        numbers = []
    if not numbers or not all(type(each) in (int, float) and 0 < each < 1e7 for each in numbers) or not intervals:
        raise BadInput('the body must be JSON such as {"seconds": 60, "collectors": {"cpu": 5}}, with numbers above 0')
    return seconds, intervals
