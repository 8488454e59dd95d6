"""Relays in the server: what the section `relay:` starts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from streamgauge.clock import Clock
from streamgauge.errors import ConfigError, ListenFailed
from streamgauge.ingest.relay.listener import RelayListener
from streamgauge.ingest.relay.settings import RelaySettings
from streamgauge.model.sink import Sink
from streamgauge.serve.server import bind
from streamgauge.start import is_loopback
from streamgauge.stats import Stats

LOG = logging.getLogger(__name__)

Start = Callable[[Coroutine[Any, Any, None]], None]


def check_relays(settings: RelaySettings | None, insecure: bool) -> None:
    """Raises ConfigError for an address that others reach, unless that is wanted."""
    if settings is None or insecure:
        return
    host, _ = divided(settings.listen)
    if not is_loopback(host) and not settings.allow:
        raise ConfigError(
            f"relay.server-listen-address {settings.listen} can be reached from other machines: name in relay.allow "
            "the networks that relays come from, or add --insecure if everybody who reaches it may send values"
        )
    for key, address in (("http", settings.http_listen), ("live", settings.live_listen)):
        if address and not is_loopback(divided(address)[0]) and not settings.token:
            raise ConfigError(
                f"relay.{key}-listen-address {address} can be reached from other machines: set relay.token, or add "
                "--insecure if everybody who reaches this address may read"
            )


def divided(address: str) -> tuple[str, int]:
    """Host and port; an empty host is all addresses."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def open_relays(
    settings: RelaySettings, sink: Sink, stats: Stats, clock: Clock, stack: AsyncExitStack, start: Start
) -> RelayListener:
    """Listen for relays. Raises ListenFailed for an address that was configured and cannot be had."""
    listener = RelayListener(settings, sink, stats, clock)
    stats.watch(listener.readings)
    start(listener.run())
    stack.push_async_callback(listener.stop)
    if sockets := _bound(settings):
        await listener.start(sockets)
        LOG.info("relays are listened for on %s", _name(sockets[0]))
    return listener


def _bound(settings: RelaySettings) -> list[socket.socket]:
    """None where the address is our default one and taken."""
    try:
        return bind(*divided(settings.listen))
    except ListenFailed as error:
        if settings.explicit:
            raise ListenFailed(error.message.replace("--listen", "relay.server-listen-address")) from None
        LOG.warning("%s; no relay can connect", error.message.replace("--listen", "relay.server-listen-address"))
        return []


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
