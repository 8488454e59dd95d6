"""The HTTP listeners: the one for everybody, and the internal one; TLS on both; what the start says of them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from streamgauge import __version__
from streamgauge.authentication import Authentication
from streamgauge.clock import Clock
from streamgauge.errors import ConfigError
from streamgauge.grpc_listener import GrpcListener
from streamgauge.http.addresses import host_and_port, is_loopback
from streamgauge.serve.app import PROMPT_PATHS, build_app, build_internal_app
from streamgauge.serve.prompt import PromptApp, Prompts, Whole
from streamgauge.serve.server import HttpServer
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.sessions import Sessions
from streamgauge.serve.stats import HttpStats, http_readings
from streamgauge.serve.tls import Tls, TlsFiles
from streamgauge.services import ServerServices, http_options
from streamgauge.settings import BY_NAME, Config, Settings, local_url
from streamgauge.start import LISTENERS, log_form
from streamgauge.stats import Stats
from streamgauge.store.lock import FolderLock

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOG = logging.getLogger(__name__)

Start = Callable[[Coroutine[Any, Any, None]], None]


class _CurrentApp:
    """The ASGI application in force: a reload puts another in its place, and requests that run keep theirs."""

    def __init__(self, app: PromptApp) -> None:
        self.app = app

    def begin(self, request: Whole) -> bool:
        return self.app.begin(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Listeners:
    """All of one run of the server. Raises ConfigError for settings of TLS that cannot be used."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        services: ServerServices,
        authentication: Authentication,
        stats: Stats,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._services = services
        self._authentication = authentication
        self._clock = clock
        self._stats = HttpStats()
        authorities = authentication.authorities
        self._sessions = Sessions(clock, authorities, lambda: authorities.version)
        files = tls_files(settings)
        self._tls = None if files is None else Tls(files, clock)
        self._reserved = _connections_of_relays(config)
        self._app = _CurrentApp(self._build(settings, config))
        self._main = self._server(self._app, settings.listen)
        self._servers = [self._main]
        self._internal_app: _CurrentApp | None = None
        if settings.internal_listen:
            self._internal_app = _CurrentApp(self._build_internal(settings, config))
            self._servers.append(self._server(self._internal_app, settings.internal_listen))
        self._grpc = GrpcListener(settings, services, self._sessions, self._tls, stats, clock)
        stats.watch(lambda: http_readings(self._stats, self._servers))
        services.reloaded = self._reloaded

    def _server(self, app: _CurrentApp, address: str) -> HttpServer:
        host, port = host_and_port(address)
        prompts = Prompts(PROMPT_PATHS, app.begin)
        return HttpServer(
            cast("Any", app), host, port, clock=self._clock, tls=self._tls, reserved=self._reserved, prompts=prompts
        )

    def _build(self, settings: Settings, config: Config) -> PromptApp:
        return build_app(self._services, self._options(settings, config), self._stats, self._sessions)

    def _build_internal(self, settings: Settings, config: Config) -> PromptApp:
        host, _ = host_and_port(self._settings.internal_listen)
        options = self._options(settings, config)
        asks = not is_loopback(host)
        return build_internal_app(self._services, options, self._stats, self._sessions, asks=asks)

    def _options(self, settings: Settings, config: Config) -> HttpOptions:
        # Of the settings at the start: a listener comes and goes by no reload.
        return replace(http_options(settings, config), internal_listener=bool(self._settings.internal_listen))

    def _reloaded(self, settings: Settings, config: Config) -> None:
        self._app.app = self._build(settings, config)
        if self._internal_app is not None:
            self._internal_app.app = self._build_internal(settings, config)
        if self._tls is not None:
            self._tls.check()

    # ---- from start to stop -----------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """host:port of the main one, once it listens."""
        return self._main.addresses[0]

    @property
    def app(self) -> ASGIApp:
        """What the main one answers, whatever is reloaded."""
        return self._app

    async def start(self, lock: FolderLock) -> None:
        """Listen, and say where. Raises ListenFailed."""
        for server in self._servers:
            await server.start()
        self._grpc.reserve()
        lock.announce(self.address, self._tls is not None)
        self._greet()
        self._warn()

    def watch(self, start: Start) -> None:
        """What goes on beside: ending requests of those who may not be there any more, reading the certificate anew."""
        start(self._sessions.run())
        start(self._grpc.run())
        if self._tls is not None:
            start(self._tls.run())

    async def stop(self, grace: float) -> None:
        await asyncio.gather(*(server.stop(grace) for server in self._servers), self._grpc.stop(grace))

    def _greet(self) -> None:
        """Where it listens and what to open: as lines for people, or as a log line where a program reads the log."""
        url = local_url(self.address, self._tls is not None)
        internal = [local_url(each.addresses[0], self._tls is not None) for each in self._servers[1:]]
        if log_form(self._settings) != "text":
            more = {"internal": internal[0]} if internal else {}
            if self._grpc.addresses:
                more["grpc"] = self._grpc.addresses[0]
            LOG.info("listening", extra={"url": url, "data": self._settings.data, "version": __version__, **more})
            return
        click.echo(f"streamgauge {__version__} stores its data in {self._settings.data}")
        click.echo(f"  page and Grafana data source  {url}/")
        click.echo(f"  Prometheus remote_write       {url}/api/v1/write")
        click.echo(f"  events as JSON, WebSocket     {url}/")
        for address in self._grpc.addresses:
            click.echo(f"  gRPC (TStorage)               {address}")
        for each in internal:
            click.echo(f"  health, metrics, federation   {each}/")
        if not self._authentication.authorities.open:
            click.echo("  everybody is asked for a token, a password or a certificate")
        sys.stdout.flush()

    def _warn(self) -> None:
        for address in filter(None, (getattr(self._settings, name) for name in LISTENERS)):
            host, _ = host_and_port(address)
            if is_loopback(host):
                continue
            if self._authentication.authorities.open:
                LOG.warning(
                    "everybody who reaches %s may read and write: no authentication is configured", host or "it"
                )
            elif self._tls is None:
                LOG.warning(
                    "tokens and passwords travel to %s in the clear, unless a proxy in front speaks TLS: "
                    "give --tls-cert and --tls-key",
                    address,
                )


def _connections_of_relays(config: Config) -> int:
    """How many relays, and followers of their values, may be connected beside those who speak HTTP."""
    if config.relay is None:
        return 0
    from streamgauge.relays import connections_of  # most servers have no relays

    return connections_of(config.relay)


def tls_files(settings: Settings) -> TlsFiles | None:
    """None where TLS is not spoken. Raises ConfigError."""
    if not settings.tls_cert and not settings.tls_key:
        if settings.tls_client_ca:
            raise ConfigError("tls_client_ca asks for certificates of clients: give tls_cert and tls_key, too")
        return None
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if not getattr(settings, name):
            raise ConfigError(f"{BY_NAME[other].flag} goes with {BY_NAME[name].flag}: give both, or neither")
    required = settings.tls_client_auth == "require"
    if required and not settings.tls_client_ca:
        raise ConfigError("tls_client_auth is require: say in tls_client_ca which certificates are good")
    return TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca, required)
