"""The ASGI application: guard, errors, counting, and the table of routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.routing import Route, Router

from streamgauge.auth.authenticator import Authenticator, Open
from streamgauge.errors import Disabled
from streamgauge.serve.access import admit
from streamgauge.serve.admin import AdminApi
from streamgauge.serve.authorize_api import AuthorizeApi
from streamgauge.serve.bulk import BulkApi
from streamgauge.serve.console import Console
from streamgauge.serve.deletion_api import DeletionApi
from streamgauge.serve.endpoint import Endpoint
from streamgauge.serve.errors import failure
from streamgauge.serve.events_api import EventsApi
from streamgauge.serve.guard import Guard
from streamgauge.serve.health import Health, check_ready
from streamgauge.serve.host_history_api import HostHistoryApi
from streamgauge.serve.influx_api import METHODS as INFLUX
from streamgauge.serve.influx_api import InfluxApi
from streamgauge.serve.live_tags_api import LiveTagsApi
from streamgauge.serve.params import Params
from streamgauge.serve.pins_api import PinsApi
from streamgauge.serve.prometheus_api import PrometheusApi
from streamgauge.serve.prompt import Prompt, PromptApp, Whole
from streamgauge.serve.remote_read import RemoteRead
from streamgauge.serve.services import HttpOptions, Services
from streamgauge.serve.sessions import Sessions
from streamgauge.serve.snapshot_api import SnapshotApi
from streamgauge.serve.sql_api import SqlApi
from streamgauge.serve.stats import HttpStats
from streamgauge.serve.stats_api import StatsApi
from streamgauge.serve.stats_front import StatsOrigins
from streamgauge.serve.status_api import StatusApi
from streamgauge.serve.tail_api import TailApi
from streamgauge.serve.targets_api import TargetsApi
from streamgauge.serve.tokens_api import TokensApi
from streamgauge.serve.upload_api import PUSH_PATHS, PushApi
from streamgauge.serve.websocket import SWITCHING
from streamgauge.serve.write import PATH as WRITE_PATH
from streamgauge.serve.write import RemoteWrite

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_GONE = 499
"""Counted, never sent: the client went away before its answer began."""


PROMPT_PATHS = PUSH_PATHS | {WRITE_PATH}
"""Of requests that are taken without a task, where they can be."""

INTERNAL = frozenset({"/-/healthy", "/-/ready", "/metrics", "/federate"})
"""What a listener of its own has where there is one."""


def build_app(
    services: Services,
    options: HttpOptions | None = None,
    stats: HttpStats | None = None,
    sessions: Sessions | None = None,
) -> PromptApp:
    """Everything that the server answers over HTTP. `stats`, if given, is kept up to date; `sessions` ends requests of
    those who may not be there any more."""
    options = options or HttpOptions()
    stats = stats or HttpStats()
    table = [
        each
        for each in allowed(endpoints(services, options), options)
        if not options.internal_listener or each.path not in INTERNAL
    ]
    past = past_the_router(services)
    prompt = {path: app for path, app in past.items() if isinstance(app, RemoteWrite | PushApi)}
    application = _Application(services, table, stats, services.authenticator, sessions, past, prompt)
    guard = Guard(application, options.allow_hosts, options.allow_origins, stats, application.begin)
    return StatsOrigins(guard, options.relay.cors_allow) if options.relay is not None else guard


def build_internal_app(
    services: Services, options: HttpOptions, stats: HttpStats, sessions: Sessions | None, *, asks: bool
) -> PromptApp:
    """What the internal listener answers. asks: whether whoever reaches it is asked who they are; where nobody is,
    nobody's time is up either."""
    table = [each for each in endpoints(services, options) if each.path in INTERNAL]
    authenticator = services.authenticator if asks else Open()
    application = _Application(services, table, stats, authenticator, sessions if asks else None, {}, {})
    return Guard(application, options.allow_hosts, options.allow_origins, stats)


def past_the_router(services: Services) -> Mapping[str, ASGIApp]:
    """Where most samples come in, which is answered past the router."""
    pushes, influx = PushApi(services), InfluxApi(services)
    return {WRITE_PATH: RemoteWrite(services)} | dict.fromkeys(PUSH_PATHS, pushes) | dict.fromkeys(INFLUX, influx)


def endpoints(services: Services, options: HttpOptions) -> list[Endpoint]:
    """The table of routes, but for those past the router."""
    table: list[Endpoint] = []
    console = Console(lambda: sorted([WRITE_PATH, *(endpoint.path for endpoint in table)]))
    table += PrometheusApi(services, options).endpoints()
    table += RemoteRead(services, options).endpoints()
    table += SqlApi(services, options).endpoints()
    table += TailApi(services, options).endpoints()
    table += BulkApi(services).endpoints()
    table += StatusApi(services, options).endpoints()
    table += TargetsApi(services).endpoints()
    table += AdminApi(services).endpoints()
    table += SnapshotApi(services).endpoints()
    table += StatsApi(services, options).endpoints()
    table += LiveTagsApi(services, options).endpoints()
    table += HostHistoryApi(services, options).endpoints()
    table += PinsApi(services).endpoints()
    table += TokensApi(services).endpoints()
    table += DeletionApi(services).endpoints()
    table += EventsApi(services, console.welcome).endpoints()
    table += AuthorizeApi(services).endpoints()
    table += Health(services).endpoints()
    table += console.endpoints()
    return table


def allowed(table: Sequence[Endpoint], options: HttpOptions) -> list[Endpoint]:
    """The table with what the options switch off refused."""
    return [replace(each, handler=_disabled) if each.admin and not options.admin_api else each for each in table]


async def _disabled(request: Request, params: Params) -> Response:
    raise Disabled("admin APIs disabled; start the server with --enable-admin-api to use this one")


class _Application:
    """Routes a request, answers it if it fails, and counts it. past: what is answered past the router, prompt: what
    takes requests promptly; by path."""

    def __init__(
        self,
        services: Services,
        table: list[Endpoint],
        stats: HttpStats,
        authenticator: Authenticator,
        sessions: Sessions | None,
        past: Mapping[str, ASGIApp],
        prompt: Mapping[str, Prompt],
    ) -> None:
        self._clock = services.clock
        self._stats = stats
        self._watching = _unwatched if sessions is None else sessions.watching
        self._past = past
        self._prompt = prompt
        routes = [Route(each.path, _Ready(services, each, authenticator), methods=list(each.methods)) for each in table]
        self._router = Router(routes, redirect_slashes=False)

    def begin(self, request: Whole) -> bool:
        path, respond, started = request.scope["path"], request.respond, self._clock.monotonic()
        if (taker := self._prompt.get(path)) is None:
            return False

        def counted(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
            self._stats.observe(path, status, self._clock.monotonic() - started)
            respond(status, headers, body)

        request.respond = counted
        return taker.begin(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._clock.monotonic()
        switched: float | None = None  # when it became a connection that may last for days
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status, switched
            if message["type"] == "http.response.start":
                status = message["status"]
                switched = self._clock.monotonic() if status == SWITCHING else None
            await send(message)

        try:
            with self._watching(scope):
                await self._route(scope, receive, watched)
        except ClientDisconnect:
            pass
        except Exception as error:
            if status:
                raise  # the answer has begun: the server must break it off
            await failure(scope["path"], error)(scope, receive, watched)
        finally:
            seconds = (switched or self._clock.monotonic()) - started
            self._stats.observe(_pattern(scope), status or CLIENT_GONE, seconds)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (past := self._past.get(scope["path"])) is not None:
            await past(scope, receive, send)
            return
        scope["app"] = self  # makes the router raise 404 and 405 instead of answering them in text
        await self._router(scope, receive, send)


def _unwatched(scope: Scope) -> AbstractContextManager[None]:
    return nullcontext()


def _pattern(scope: Scope) -> str:
    endpoint = scope.get("endpoint")
    if isinstance(endpoint, _Ready):
        return endpoint.path
    path: str = scope["path"]
    return path if path == WRITE_PATH or path in PUSH_PATHS or path in INFLUX else "unknown"


class _Ready:
    """Lets to an endpoint who may call it; one that needs the stored data answers 503 until that has been read."""

    def __init__(self, services: Services, endpoint: Endpoint, authenticator: Authenticator) -> None:
        self.path = endpoint.path
        self._authenticator = authenticator
        self._services = services
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint
        await admit(scope, endpoint.needs, endpoint.bound, self._authenticator)
        if not endpoint.while_starting:
            check_ready(self._services)
        await self._endpoint(scope, receive, send)
