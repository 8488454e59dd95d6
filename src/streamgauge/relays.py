"""Relays in the server: what the section `relay:` starts."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

from streamgauge.clock import Clock
from streamgauge.errors import ListenFailed
from streamgauge.forward.live.open import open_publisher
from streamgauge.forward.live.publisher import LivePublisher
from streamgauge.forward.live.publisher import readings as publisher_readings
from streamgauge.forward.live.target import LiveTarget, LiveValue
from streamgauge.http.addresses import host_and_port
from streamgauge.ingest.relay.listener import RelayListener
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.ingest.relay.values import Collector
from streamgauge.live.tags import TagHub
from streamgauge.model.sink import Sink
from streamgauge.serve.live_tags_tcp import LiveTagsListener
from streamgauge.serve.server import HttpServer, bind
from streamgauge.serve.services import HttpOptions
from streamgauge.serve.stats_api import StatsAccess
from streamgauge.serve.stats_front import AtRoot
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
        self.listener = RelayListener(settings, sink, stats, clock)
        self.live_tags = TagHub(self._listening)
        stats.watch(self.listener.readings)
        stats.watch(self.live_tags.readings)
        if publishers:
            stats.watch(lambda: publisher_readings(publishers))
            self._listening(False)

    def override(self, seconds: float, intervals: Mapping[str, float]) -> int:
        return self.listener.override(seconds, intervals)

    def flush(self) -> int:
        return self.listener.flush()

    def _listening(self, busy: bool) -> None:
        """busy: whether anybody has subscribed."""
        self.listener.live = self._publish if busy or self.publishers else None

    def _publish(self, host: str, collector: Collector, name: bytes, text: bytes) -> None:
        tags = [tag.decode(errors="replace") for tag in collector.tags]
        tags += ["metrics", f"host:{host}", name.decode(errors="replace")]
        said = text.decode(errors="replace")
        self.live_tags.publish(tags, said)
        if self.publishers:
            words = (host, collector.name.decode(errors="replace"), name.decode(errors="replace"))
            value = LiveValue(*words, said, tuple(tags), self._clock.now_ms())
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
    be had."""
    publishers = [open_publisher(target, clock) for target in targets]
    relays = Relays(settings, publishers, sink, stats, clock)
    start(relays.listener.run())
    for publisher in publishers:
        start(publisher.run())
    stack.push_async_callback(relays.listener.stop)
    stack.callback(relays.live_tags.close)
    if sockets := _bound(settings):
        await relays.listener.start(sockets)
        LOG.info("relays are listened for on %s", _name(sockets[0]))
    if settings.live_listen:
        live = LiveTagsListener(relays.live_tags, live_access(settings, is_open), is_open)
        stack.push_async_callback(live.stop)
        sockets = _bind("live-listen-address", settings.live_listen)
        await live.start(sockets)
        LOG.info("live values are on %s", _name(sockets[0]))
    if settings.http_listen:
        host, port = host_and_port(settings.http_listen)
        http = HttpServer(cast("Any", AtRoot(app)), host, port, clock=clock)
        with _named("http-listen-address"):
            await http.start()
        stack.push_async_callback(http.stop, GRACE_SECONDS)
        LOG.info("the stats API is on http://%s/", http.addresses[0])
    return relays


def live_access(settings: RelaySettings, is_open: Callable[[], bool]) -> Callable[[str], bool]:
    """Whether a token lets somebody follow live values over TCP, where there is no other way to show who one is."""
    fits = StatsAccess(HttpOptions(relay=settings)).fits
    return fits if settings.token else lambda token: is_open()


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
