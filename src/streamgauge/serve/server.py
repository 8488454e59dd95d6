"""One HTTP listener: its sockets, its connections, and how it stops."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

from uvicorn.config import Config
from uvicorn.server import ServerState

from streamgauge.clock import Clock, SystemClock
from streamgauge.errors import ListenFailed
from streamgauge.serve.connections import ConnectionLimits, ConnectionTable
from streamgauge.serve.handshake import Handshake
from streamgauge.serve.prompt import Prompts, never
from streamgauge.serve.protocol import Connection

if TYPE_CHECKING:
    from collections import Counter

    from uvicorn._types import ASGI3Application

    from streamgauge.serve.tls import Tls

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
BACKLOG = 1_024
"""Connections that the kernel holds until we accept them."""

ACCEPT_AT_ONCE = 32
"""Connections accepted in one turn of the loop, at 0.25 ms each: 1,000 at once held everything else up for 250 ms."""

OTHER_DESCRIPTORS = 512
"""Descriptors left for blocks, log segments, workers and listeners."""


class HttpServer:
    """Serves an ASGI application on every address that `host` means; port 0 takes a free one.

    With `tls` it speaks that alone. reserved: descriptors that other listeners may take. prompts: take some requests
    before `app` does.
    Installs no signal handlers. `start` and `stop` belong to one event loop.
    """

    def __init__(
        self,
        app: ASGI3Application,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: Clock | None = None,
        limits: ConnectionLimits | None = None,
        tls: Tls | None = None,
        reserved: int = 0,
        prompts: Prompts | None = None,
    ) -> None:
        self._tls = tls
        self._prompts = prompts or Prompts(frozenset(), never)
        self._reserved = reserved
        self._config = Config(
            app,
            http="httptools",
            workers=1,  # else the environment is asked
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._state = ServerState()
        self._host, self._port = host, port
        self._clock = clock or SystemClock()
        self._limits = limits or ConnectionLimits()
        self._table = ConnectionTable(self._limits)
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises ListenFailed, with a sentence, when an address is taken, unknown or forbidden."""
        room = raise_descriptor_limit() - ACCEPT_AT_ONCE - OTHER_DESCRIPTORS
        room -= min(self._reserved, room // 2)
        self._table.limits = replace(self._limits, connections=min(self._limits.connections, max(16, room)))
        self._table.now = self._clock.monotonic()
        self._config.load()
        self._state.default_headers = self._date_header()
        loop = asyncio.get_running_loop()

        def plain() -> Connection:
            return Connection(self._config, self._state, self._table, loop, self._prompts)

        def encrypted() -> Handshake:
            assert self._tls is not None
            return Handshake(plain, self._tls.context, self._table, loop)

        connection: Callable[[], asyncio.Protocol] = plain if self._tls is None else encrypted

        sockets = bind(self._host, self._port)
        self._port = sockets[0].getsockname()[1]
        for sock in sockets:
            self._listeners.append(await loop.create_server(connection, sock=sock, backlog=ACCEPT_AT_ONCE))
            sock.listen(BACKLOG)  # asyncio has one number for both
        self._sweeper = loop.create_task(self._sweep(), name="http-sweep")

    @property
    def port(self) -> int:
        """The port listened on: after `start` the real one, where 0 was asked for."""
        return self._port

    @property
    def addresses(self) -> list[str]:
        """host:port of every socket listened on."""
        names = [sock.getsockname() for listener in self._listeners for sock in listener.sockets]
        return [f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}" for name in names]

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._table)

    @property
    def closed(self) -> Counter[str]:
        """Connections closed by a limit since the start, by reason."""
        return self._table.closed

    async def stop(self, grace: float = 30.0) -> None:
        """Stop accepting, let requests that have begun finish for `grace` seconds, then break off what is left.

        A second call, while the first waits, breaks off at once; both return when everything is closed.
        """
        if self._stopping:
            self._hurry.set()
            await self._stopped.wait()
            return
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        self._table.stop_accepting()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._finish(grace)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        self._stopped.set()

    async def _finish(self, grace: float) -> None:
        waits = [
            asyncio.ensure_future(waiting)
            for waiting in (self._table.wait_empty(), self._hurry.wait(), self._clock.sleep(grace))
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for task in self._state.tasks:
            task.cancel()
        for member in self._table.members():
            member.break_off()
        await self._table.wait_empty()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            self._state.default_headers = self._date_header()
            self._table.sweep(self._clock.monotonic())

    def _date_header(self) -> list[tuple[bytes, bytes]]:
        return [(b"date", formatdate(self._clock.now_ms() / 1000, usegmt=True).encode())]


def raise_descriptor_limit() -> int:
    """Raise the limit of open descriptors of this process as far as it may, and return it."""
    if sys.platform == "win32":
        return 1 << 20
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls its limit infinite and then refuses more than 10,240.
    for wanted in (hard, 1 << 20, 10_240):
        if wanted != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or wanted <= soft):
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            continue
        soft = wanted
        break
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to every address that `host` means ("" is all of them), all on the same port.

    A family that this machine lacks is left out as long as one address remains. Raises ListenFailed.
    """
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in _resolve(host, port):
        try:
            sock = _bind_one(family, (address[0], sockets[0].getsockname()[1] if sockets else address[1], *address[2:]))
        except OSError as error:
            failure = error
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            break
        sockets.append(sock)
    else:
        if sockets:
            return sockets
    for sock in sockets:
        sock.close()
    assert failure is not None
    raise ListenFailed(_explain(host, port, failure)) from failure


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int, int, int] | tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ListenFailed(f"cannot listen on {host}:{port}: the host is not known ({error})") from error
    # IPv4 first: the port that is free there becomes the port of all.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _bind_one(family: socket.AddressFamily, address: tuple[str | int, ...]) -> socket.socket:
    # The protocol is named, or asyncio would not see that this is TCP and leave Nagle's algorithm on for connections
    # it accepts: an answer in two writes would then wait 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":
            # SO_REUSEADDR would let another program take the port over there.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _keep_alive(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        # Two sockets can be bound to one address until one of them listens.
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out that a client is gone which never said so; accepted sockets inherit it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _explain(host: str, port: int, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "another program listens there, maybe another streamgauge or an OpenTelemetry collector; "
        "choose another address with --listen, such as 127.0.0.1:0 for any port that is free",
        errno.EACCES: "this user may not",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }
    name = f"[{host}]" if ":" in host else host
    return f"cannot listen on {name}:{port}: {reasons.get(error.errno or 0, error.strerror)}"
