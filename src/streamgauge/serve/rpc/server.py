"""The gRPC listener: its limits, its certificate, and how it starts and stops.

grpc.aio on the server's own event loop: of the two ways that the library has it costs the least for a message, and what
it hands over goes to the store without another thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before the library is imported: what peers do wrong would go to standard error, unasked and without a limit.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from streamgauge.clock import Clock
from streamgauge.errors import ListenFailed
from streamgauge.serve.rpc.about import About
from streamgauge.serve.rpc.calls import MAX_CALLS, Calls
from streamgauge.serve.rpc.tstorage import TStorage
from streamgauge.serve.sessions import Sessions
from streamgauge.stats import Stats

if TYPE_CHECKING:
    from streamgauge.query.budget import Limits
    from streamgauge.serve.services import Services
    from streamgauge.serve.tls import Tls

LOG = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 << 10
"""Of one message: twice the labels that a series may have."""
MAX_METADATA_BYTES = 32 << 10
"""Of a call's metadata: a signed token has some kilobytes."""
MAX_CONNECTIONS = 1_000
"""At once: some 100 KiB of memory and a descriptor each. Programs keep one, and send all their calls through it."""
MAX_STREAMS = 100
"""Calls at once on one connection; clients queue the next."""
HANDSHAKE_MS = 10_000
PING_MS = 60_000
"""A connection on which nothing is heard is asked whether it is still there, and has another third to answer."""
IDLE_MS = 300_000
"""A connection without calls is closed; clients open another when they need it."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # else two servers would share an address, and neither say so
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.keepalive_time_ms", PING_MS),
    ("grpc.keepalive_timeout_ms", PING_MS // 3),
    ("grpc.max_connection_idle_ms", IDLE_MS),
)


class RpcServer:
    """Used on one event loop. limits: asks for those of one query."""

    def __init__(
        self,
        services: Services,
        sessions: Sessions,
        stats: Stats,
        clock: Clock,
        tls: Tls | None = None,
        limits: Callable[[], Limits] | None = None,
    ) -> None:
        from streamgauge.query.budget import Limits

        self._calls = Calls(services, sessions, clock)
        self._about = About(self._calls)
        self._tls = tls
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS + MAX_STREAMS)
        self._server.add_generic_rpc_handlers(
            (TStorage(services, self._calls, limits or Limits).handlers(), *self._about.handlers())
        )
        stats.watch(self._calls.readings)

    async def start(self, addresses: Sequence[str]) -> list[int]:
        """Listen on each HOST:PORT; the ports. Raises ListenFailed, naming the one that cannot be had."""
        credentials = None if self._tls is None else server_credentials(self._tls)
        ports = []
        for address in addresses:
            try:
                if credentials is None:
                    ports.append(self._server.add_insecure_port(address))
                else:
                    ports.append(self._server.add_secure_port(address, credentials))
            except RuntimeError:
                raise ListenFailed(f"cannot listen for gRPC on {address}: another program has taken it") from None
        await self._server.start()
        await self._about.serving()
        return ports

    async def run(self) -> None:
        """What goes on beside, until cancelled."""
        await self._calls.run()

    async def stop(self, grace: float) -> None:
        """Let calls that have begun end for `grace` seconds, and break off the others."""
        await self._about.stopping()
        self._calls.stop()
        await self._server.stop(grace)


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """The listener's certificate, whichever is in force when a connection begins.

    The library asks clients for a certificate only where they must have one."""
    seen = tls.reloads

    def fetch() -> Any:
        """Called by the library's threads. None: it is as it was."""
        nonlocal seen
        if tls.reloads == seen:
            return None
        seen = tls.reloads
        try:
            return _configuration(tls)
        except OSError as error:
            LOG.error("the certificate was not read again for gRPC, the old one stays: %s", error.strerror)
            return None

    required = tls.files.required
    return grpc.dynamic_ssl_server_credentials(_configuration(tls), fetch, require_client_authentication=required)


def _configuration(tls: Tls) -> Any:
    files = tls.files
    authorities = Path(files.client_ca).read_bytes() if files.required else None
    pair = (Path(files.key).read_bytes(), Path(files.certificate).read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)
