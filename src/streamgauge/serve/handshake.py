"""A connection until its TLS handshake is over: it counts and has its time like any other."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any, cast

from streamgauge.serve.connections import ConnectionTable, Stage

MAX_PIECE = 32_768
"""Bytes that a connection hands on at once. asyncio's own 256 KiB are memory that each connection keeps for ever."""
SHUTDOWN_SECONDS = 5
"""For the other side's goodbye."""
_HANDSHAKE_SECONDS = 3_600
"""The table ends those that are late. This one only has to be later."""


class _Tls(SSLProtocol):
    max_size = MAX_PIECE


class Handshake(asyncio.Protocol):
    """Hands over to the protocol that `connection` makes when the handshake is over. Created for each socket. admits:
    whether somebody of an address may come at all."""

    stage = Stage.HEADER
    since = 0.0

    def __init__(
        self,
        connection: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        table: ConnectionTable,
        loop: asyncio.AbstractEventLoop,
        admits: Callable[[str], bool] = lambda peer: True,
    ) -> None:
        self._connection = connection
        self._context = context
        self._table = table
        self._loop = loop
        self._admits = admits
        self._socket: asyncio.Transport | None = None  # under the TLS
        self._listed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called twice: with the socket's transport, and with that of what is encrypted."""
        transport = cast("asyncio.Transport", transport)
        if self._socket is None:
            self._begin(transport)
            return
        self._leave()
        connection = self._connection()
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._socket = transport
        address = transport.get_extra_info("peername")
        if not self._admits(str(address[0]) if address else ""):
            self._table.closed["not_allowed"] += 1
            transport.abort()
            return
        self._listed = True
        if not self._table.add(self):
            self._table.closed["no_room"] += 1
            self._leave()
            transport.abort()
            return
        over: asyncio.Future[Any] = self._loop.create_future()
        over.add_done_callback(self._over)
        tls = _Tls(
            self._loop,
            self,
            self._context,
            over,
            server_side=True,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
        transport.set_protocol(tls)
        tls.connection_made(transport)

    def _over(self, over: asyncio.Future[Any]) -> None:
        failed = over.cancelled() or over.exception() is not None
        if self._listed:  # it came to nothing
            self._table.closed["tls_failed"] += failed
            self._leave()
            self.break_off()

    def _leave(self) -> None:
        if self._listed:
            self._listed = False
            self._table.discard(self)

    # ---- connections.Member -----------------------------------------------------------------------------------------

    def expire(self) -> None:
        self._table.closed["tls_timeout"] += 1
        self._leave()
        self.break_off()

    def check_rates(self, seconds: float) -> None:
        """There is no body yet."""

    def evict(self) -> None:
        self._leave()
        self.break_off()

    def break_off(self) -> None:
        if self._socket is not None:
            self._socket.abort()
