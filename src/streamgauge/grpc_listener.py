"""The gRPC listener in the server: its addresses are taken at the start, and the library is imported when the server is
ready, on a thread, as that takes a tenth of a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamgauge.clock import Clock
from streamgauge.errors import ListenFailed
from streamgauge.http.addresses import host_and_port
from streamgauge.serve.server import bind
from streamgauge.serve.sessions import Sessions
from streamgauge.serve.tls import Tls
from streamgauge.services import ServerServices
from streamgauge.settings import BY_NAME, Settings
from streamgauge.stats import Stats

if TYPE_CHECKING:
    from streamgauge.serve.rpc.server import RpcServer

LOG = logging.getLogger(__name__)

SETTINGS = ("grpc_listen", "tstorage_listen")


class GrpcListener:
    """Of one run of the server. addresses: HOST:PORT of where it listens, or will."""

    def __init__(
        self,
        settings: Settings,
        services: ServerServices,
        sessions: Sessions,
        tls: Tls | None,
        stats: Stats,
        clock: Clock,
    ) -> None:
        self.addresses: list[str] = []
        self._settings = settings
        self._services = services
        self._sessions = sessions
        self._tls = tls
        self._stats = stats
        self._clock = clock
        self._reserved: list[socket.socket] = []
        self._server: RpcServer | None = None
        self._needed = False  # somebody asked for an address
        self._stopping = False

    def reserve(self) -> None:
        """Take the addresses. Raises ListenFailed for one that was asked for and cannot be had; the default one, where
        that is so, is done without."""
        for name in SETTINGS:
            address = getattr(self._settings, name)
            if not address:
                continue
            try:
                sockets = bind(*host_and_port(address))
            except ListenFailed as error:
                message = error.message.replace("--listen", BY_NAME[name].flag)
                if name in self._settings.given:
                    self._release()
                    raise ListenFailed(message) from None
                LOG.warning("%s; there is no gRPC listener", message)
                continue
            self._needed = self._needed or name in self._settings.given
            self._reserved += sockets
            self.addresses += [_name(sock) for sock in sockets]
            if host_and_port(address)[1]:  # a port that the system has chosen would be free again
                _refuse_for_now(sockets)

    async def run(self) -> None:
        """Listen, and do what goes on beside, until cancelled."""
        if not self.addresses:
            return
        server = await asyncio.to_thread(self._imported)
        if self._stopping:
            return
        self._server = server(
            self._services, self._sessions, self._stats, self._clock, self._tls, self._services.query_limits
        )
        self._release()  # in the same step in which the library takes them
        try:
            await self._server.start(_as_the_library_takes_them(self.addresses))
        except ListenFailed as error:  # somebody was quicker; everything else goes on
            level = logging.ERROR if self._needed else logging.WARNING
            LOG.log(level, "%s; there is no gRPC listener", error.message)
            return
        LOG.info("gRPC is answered on %s", " and ".join(self.addresses))
        await self._server.run()

    async def stop(self, grace: float) -> None:
        self._stopping = True
        self._release()
        if self._server is not None:
            await self._server.stop(grace)

    def _imported(self) -> type[RpcServer]:
        from streamgauge.serve.rpc.server import RpcServer

        return RpcServer

    def _release(self) -> None:
        for sock in self._reserved:
            sock.close()
        self._reserved = []


def _refuse_for_now(sockets: Sequence[socket.socket]) -> None:
    """Stay bound, and have who connects refused rather than wait. Where that cannot be done they wait."""
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _as_the_library_takes_them(addresses: Sequence[str]) -> list[str]:
    """Its [::] is 0.0.0.0 as well, which must not be taken again."""
    both = {"0.0.0.0" + address.removeprefix("[::]") for address in addresses if address.startswith("[::]:")}
    return [address for address in addresses if address not in both]


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
