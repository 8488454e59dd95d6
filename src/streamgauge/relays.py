"""Relays in the server: what the section `relay:` starts."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from streamgauge.clock import Clock
from streamgauge.errors import ListenFailed
from streamgauge.forward.live.open import open_publisher
from streamgauge.forward.live.publisher import LivePublisher
from streamgauge.forward.live.publisher import readings as publisher_readings
from streamgauge.forward.live.target import LiveTarget, LiveValue
from streamgauge.http.addresses import host_and_port
from streamgauge.ingest.relay.listener import MAX_CONNECTIONS as MAX_RELAYS
from streamgauge.ingest.relay.listener import RelayListener
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.relay.values import Collector
from streamgauge.live.tags import TagHub
from streamgauge.model.sink import Sink
from streamgauge.serve.live_tags_tcp import MAX_CONNECTIONS as MAX_FOLLOWERS
from streamgauge.serve.live_tags_tcp import LiveTagsListener
from streamgauge.serve.server import HttpServer, bind
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.stats_api import StatsAccess
from streamgauge.serve.stats_front import AtRoot
from streamgauge.serve.tls import TlsFiles
from streamgauge.serve.tls_front import TlsFront
from streamgauge.stats import Stats

if TYPE_CHECKING:
    from starlette.types import ASGIApp

LOG = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""How long requests of the stats API's own listener that have begun may go on when the server stops."""

Start = Callable[[Coroutine[Any, Any, None]], None]


class Relays:
    """Implements serve.services.RelayControl."""

    def __init__(
        self, settings: RelaySettings, publishers: Sequence[LivePublisher], sink: Sink, stats: Stats, clock: Clock
    ) -> None:
        self.settings = settings
        self.publishers = publishers
        self._clock = clock
        self._stats = stats
        self._front = _front(settings, clock)
        self._live_listener: LiveTagsListener | None = None
        self.listener = RelayListener(settings, sink, stats, clock)
        self.live_tags = TagHub(self._listening)
        stats.watch(self.listener.readings)
        stats.watch(self.live_tags.readings)
        if publishers:
            stats.watch(lambda: publisher_readings(publishers))
            self._listening(False)
        if self._front is not None:
            stats.watch(self._front.readings)

    def override(self, seconds: float, intervals: Mapping[str, float]) -> int:
        return self.listener.override(seconds, intervals)

    def flush(self) -> int:
        return self.listener.flush()

    def lets_in(self, token: str) -> bool:
        now = self.settings
        return bool(now.token) and StatsAccess(HttpOptions(relay=now)).fits(token)

    def apply(self, settings: RelaySettings) -> None:
        """Go by other settings: by their token. Where is listened stays, and files of certificates are looked at."""
        self.settings = settings
        if self._live_listener is not None:
            self._live_listener.check()
        if self._front is not None:
            self._front.tls.check()

    async def open(self, app: ASGIApp, stack: AsyncExitStack, start: Start, is_open: Callable[[], bool]) -> None:
        """As `open_relays`."""
        settings, front = self.settings, self._front
        start(self.listener.run())
        for publisher in self.publishers:
            start(publisher.run())
        if front is not None:
            start(front.run())
            stack.callback(front.stop)
        stack.push_async_callback(self.listener.stop)
        stack.callback(self.live_tags.close)
        if sockets := _bound(settings):
            if front is None:
                await self.listener.start(sockets)
            else:
                await self.listener.start(sockets, partial(front.before, admits=self.listener.allows))
            LOG.info("relays are listened for on %s", _name(sockets[0]))
        if settings.live_listen:
            live = LiveTagsListener(self.live_tags, live_access(lambda: self.settings, is_open), is_open)
            self._live_listener = live
            self._stats.watch(live.readings)
            stack.push_async_callback(live.stop)
            sockets = _bind("live-listen-address", settings.live_listen)
            await (live.start(sockets) if front is None else live.start(sockets, front.before))
            start(live.run(self._clock))
            LOG.info("live values are on %s", _name(sockets[0]))
        if settings.http_listen:
            await self._open_http(app, stack)

    async def _open_http(self, app: ASGIApp, stack: AsyncExitStack) -> None:
        """The stats API's own listener."""
        host, port = host_and_port(self.settings.http_listen)
        tls = self._front.tls if self._front is not None and self.settings.http_tls else None
        reserved = connections_of(self.settings)
        http = HttpServer(cast("Any", AtRoot(app)), host, port, clock=self._clock, tls=tls, reserved=reserved)
        with _named("http-listen-address"):
            await http.start()
        stack.push_async_callback(http.stop, GRACE_SECONDS)
        LOG.info("the stats API is on http%s://%s/", "s" * (tls is not None), http.addresses[0])

    def _listening(self, busy: bool) -> None:
        """busy: whether anybody has subscribed."""
        self.listener.live = self._publish if busy or self.publishers else None

    def _publish(self, host: str, collector: Collector, name: bytes, text: bytes) -> None:
        stat, said = name.decode(errors="replace"), text.decode(errors="replace")
        tags = (*collector.texts, "metrics", f"host:{host}", stat)
        self.live_tags.publish(tags, said)
        if self.publishers:
            words = (host, collector.name.decode(errors="replace"), stat)
            value = LiveValue(*words, said, tags, self._clock.now_ms())
            for publisher in self.publishers:
                publisher.put(value)


async def open_relays(
    settings: RelaySettings,
    targets: Sequence[LiveTarget],
    sink: Sink,
    stats: Stats,
    clock: Clock,
    app: ASGIApp,
    stack: AsyncExitStack,
    start: Start,
    is_open: Callable[[], bool],
) -> Relays:
    """Listen for relays, and where that is configured for those who ask for their values. targets: where live
    values are published. app: answers the stats API.
    is_open: whether everybody may read this server. Raises ListenFailed for an address that was configured and cannot
    be had, and ConfigError for certificates that cannot be used."""
    relays = Relays(settings, [open_publisher(target, clock) for target in targets], sink, stats, clock)
    await relays.open(app, stack, start, is_open)
    return relays


def connections_of(settings: RelaySettings) -> int:
    """How many there may be at the listeners that do not speak HTTP."""
    return MAX_RELAYS * bool(settings.listen) + MAX_FOLLOWERS * bool(settings.live_listen)


def live_access(settings: Callable[[], RelaySettings], is_open: Callable[[], bool]) -> Callable[[str], bool]:
    """Whether a token lets somebody follow live values over TCP, where there is no other way to show who one is.
    settings: those in force."""

    def fits(token: str) -> bool:
        now = settings()
        return StatsAccess(HttpOptions(relay=now)).fits(token) if now.token else is_open()

    return fits


def _front(settings: RelaySettings, clock: Clock) -> TlsFront | None:
    """Raises ConfigError."""
    if not settings.tls_cert:
        return None
    ca = settings.tls_client_ca
    return TlsFront(TlsFiles(settings.tls_cert, settings.tls_key, ca, required=bool(ca)), clock)


@contextlib.contextmanager
def _named(key: str) -> Iterator[None]:
    """Have a complaint about an address name the setting that it is of."""
    try:
        yield
    except ListenFailed as error:
        raise ListenFailed(error.message.replace("--listen", f"relay.{key}")) from None


def _bind(key: str, address: str) -> list[socket.socket]:
    with _named(key):
        return bind(*host_and_port(address))


def _bound(settings: RelaySettings) -> list[socket.socket]:
    """None where the address is our default one and taken."""
    try:
        return _bind("server-listen-address", settings.listen)
    except ListenFailed as error:
        if settings.explicit:
            raise
        LOG.warning("%s; no relay can connect", error.message)
        return []


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
