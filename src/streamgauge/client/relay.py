"""A relay: keeps a connection to a server, which asks it for values.

    with Relay("web1") as relay:
        relay.add_point("queue_length", lambda: len(queue), {"service": "mail"})
        relay.add_set("disk", lambda: {"sda": 0.4, "sdb": 0.7})
        …

One thread does it all: it connects, again every 5 seconds for as long as it takes, says what there is to ask for, and
calls the functions when it is asked. Works with any server of the protocol in wire/relay.py.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streamgauge.errors import BadInput
from streamgauge.wire import relay as wire

RECONNECT_SECONDS = 5.0
CONNECT_SECONDS = 10.0
"""For the connection, and for the server's answer to who we are."""
BEAT_SECONDS = 30.0
"""Until the server says what its beat is."""
_READ_BYTES = 65_536

LOG = logging.getLogger(__name__)

Point = Callable[[], float]
Set = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """How a relay is doing. error: why it is not connected, or the last connection ended; "" where nothing was wrong.
    failures: calls of collectors that raised, or gave what is no number."""

    name: str
    address: str
    connected: bool
    collectors: tuple[str, ...]
    connections: int
    polls: int
    values: int
    failures: int
    error: str


@dataclass(slots=True)
class _Collector:
    """interval: seconds between two collections; None: it is collected whenever it is asked for."""

    name: str
    collect: Set
    tags: dict[str, str]
    interval: float | None
    override: float = 0.0  # seconds in place of `interval`, until `overridden`
    overridden: float = 0.0  # monotonic
    due: float = 0.0  # monotonic
    values: dict[str, float] = field(default_factory=dict)

    def every(self, now: float) -> float | None:
        return self.override if now < self.overridden else self.interval


class _Lost(Exception):
    """The connection is of no use any more."""


class Relay:
    """Begins to connect at once. The collectors may be added and removed at any time, on any thread; their functions
    are called on the relay's own. address: HOST:PORT. reconnect: seconds between two attempts. tls: whom to
    trust, and what to show, where the server speaks TLS."""

    def __init__(
        self,
        name: str,
        address: str = "127.0.0.1:3000",
        *,
        reconnect: float = RECONNECT_SECONDS,
        daemon: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not name.strip() or "\n" in name:
            raise BadInput("a relay needs a name, on one line")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise BadInput(f'"{address}" is not an address; write HOST:PORT')
        self._name = name.strip()
        self._address = (host.strip("[]"), int(port))
        self._reconnect = reconnect
        self._tls = tls
        self._lock = threading.RLock()  # of all that follows, and of writing
        self._collectors: dict[str, _Collector] = {}
        self._socket: socket.socket | None = None
        self._connected = False  # the server knows who we are
        self._connections = self._polls = self._values = self._failures = 0
        self._error = ""
        self._beat = BEAT_SECONDS
        self._ping_due = self._pong_due = math.inf
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"relay-{self._name}", daemon=daemon)
        self._thread.start()

    # ---- for its owner ----------------------------------------------------------------------------------------------

    def add_point(
        self, name: str, collect: Point, tags: Mapping[str, str] | None = None, interval: float | None = None
    ) -> None:
        """A collector of one value, of the collector's own name. Raises BadInput, also for a name that is there."""
        self.add_set(name, lambda: {name: collect()}, tags, interval)

    def add_set(
        self, name: str, collect: Set, tags: Mapping[str, str] | None = None, interval: float | None = None
    ) -> None:
        """A collector of several values by their names. interval: seconds between two collections, of which the server
        is told the latest; None collects whenever it asks. Raises BadInput, also for a name that is there."""
        wire.check_collector(name)
        wire.check_tags(tags or {})
        collector = _Collector(name, collect, dict(tags or {}), interval)
        with self._lock:
            if name in self._collectors:
                raise BadInput(f'there is a collector "{name}" already')
            self._collectors[name] = collector
            if self._connected:
                self._send(wire.add_line(name, collector.tags))

    def remove(self, name: str) -> None:
        """Raises BadInput for a name that is not there."""
        with self._lock:
            if self._collectors.pop(name, None) is None:
                raise BadInput(f'there is no collector "{name}"')
            if self._connected:
                self._send(wire.line(wire.REMOVE, name.encode()))

    def info(self) -> RelayInfo:
        with self._lock:
            return RelayInfo(
                self._name,
                f"{self._address[0]}:{self._address[1]}",
                self._connected,
                tuple(self._collectors),
                self._connections,
                self._polls,
                self._values,
                self._failures,
                self._error,
            )

    def close(self) -> None:
        """Say goodbye, and end."""
        self._closed.set()
        with self._lock:
            if self._connected:
                self._send(wire.line(wire.CLOSE))
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def wait(self, seconds: float | None = None) -> bool:
        """Return when it is closed, or so many seconds have passed; whether it is closed."""
        return self._closed.wait(seconds)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- on its thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.is_set():
            error = ""
            try:
                self._converse()
            except (_Lost, OSError) as failure:
                error = str(failure) or type(failure).__name__
            finally:
                self._hang_up(error)
            if self._closed.wait(self._reconnect):
                return

    def _converse(self) -> None:
        connection = socket.create_connection(self._address, CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            host = self._address[0]
            connection = self._tls.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
        with self._lock:
            self._socket = connection
        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()
        self._send(wire.line(wire.ID, self._name.encode()))
        self._pong_due, self._ping_due = time.monotonic() + CONNECT_SECONDS, math.inf
        reader = wire.LineReader()
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            while not self._closed.is_set():
                wait = self._work(time.monotonic())
                if not selector.select(max(wait, 0.001)):
                    continue
                if not (data := self._received(connection)):
                    raise _Lost("the server closed the connection")
                for line in reader.feed(data):
                    self._take(line)

    def _received(self, connection: socket.socket) -> bytes:
        if not isinstance(connection, ssl.SSLSocket):
            return connection.recv(_READ_BYTES)
        with self._lock:  # nobody may write meanwhile
            data = connection.recv(_READ_BYTES)
            while connection.pending():  # which no selector would tell of
                data += connection.recv(_READ_BYTES)
        return data

    def _work(self, now: float) -> float:
        """Do what is due, and return for how many seconds nothing else is."""
        if now >= self._pong_due:
            raise _Lost("the server does not answer")
        if now >= self._ping_due:
            self._send(wire.line(wire.PING))
            self._ping_due, self._pong_due = now + self._beat, now + self._beat / 2
        due = [self._pong_due, self._ping_due, now + self._beat]
        with self._lock:
            collectors = list(self._collectors.values())
        for collector in collectors:
            if (every := collector.every(now)) is not None:
                if now >= collector.due:
                    collector.values = self._collected(collector)
                    collector.due = now + every
                due.append(collector.due)
        return min(due) - time.monotonic()

    def _take(self, line: bytes) -> None:
        word, rest = wire.command(line)
        if not self._connected:
            if word != wire.OK:
                raise _Lost(line.decode(errors="replace"))
            self._begin()
        elif word == wire.PONG:
            self._pong_due = math.inf
        elif word == wire.BEAT:
            beat = wire.number(rest)
            if beat is not None and beat > 0:
                self._beat = beat
                self._ping_due = time.monotonic() + beat
        elif word == wire.GET:
            self._answer([name.decode(errors="replace") for name in wire.words(rest)])
        elif word == wire.OVERRIDE:
            self._override(rest)
        elif word == wire.FLUSH:
            with self._lock:
                for collector in self._collectors.values():
                    collector.values = {}
            self._send(wire.line(wire.OK))

    def _begin(self) -> None:
        """The server knows us: say what it can ask for."""
        with self._lock:
            self._connected, self._error = True, ""
            self._connections += 1
            self._ping_due, self._pong_due = time.monotonic() + self._beat, math.inf
            for collector in self._collectors.values():
                self._send(wire.add_line(collector.name, collector.tags))

    def _answer(self, names: list[str]) -> None:
        now = time.monotonic()
        with self._lock:
            asked = [self._collectors[name] for name in names if name in self._collectors]
        found = {}
        for collector in asked:
            at_once = collector.every(now) is None
            found[collector.name] = self._collected(collector) if at_once else collector.values
        with self._lock:
            self._polls += 1
            self._values += sum(map(len, found.values()))
        self._send(wire.got_lines(found))

    def _collected(self, collector: _Collector) -> dict[str, float]:
        """What a collector has to say; nothing, counted and logged, where it fails."""
        values = {}
        try:
            for name, value in collector.collect().items():
                wire.check_stat(name)
                if math.isfinite(number := float(value)):
                    values[name] = number
                else:
                    self._failures += 1
        except Exception:  # whatever a user's function does
            self._failures += 1
            LOG.warning("the collector %s failed", collector.name, exc_info=True)
        return values

    def _override(self, rest: bytes) -> None:
        try:
            seconds, intervals = wire.overridden(rest)
        except BadInput:
            return
        now = time.monotonic()
        with self._lock:
            for name, interval in intervals.items():
                collector = self._collectors.get(name.decode(errors="replace"))
                if collector is not None:
                    collector.override, collector.overridden, collector.due = interval, now + seconds, now
        self._send(wire.line(wire.OK))

    def _send(self, data: bytes) -> None:
        """Where it cannot be sent, the thread that reads finds the connection closed."""
        with self._lock:
            if not data or self._socket is None:
                return
            try:
                self._socket.sendall(data)
            except OSError:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _hang_up(self, error: str) -> None:
        with self._lock:
            self._connected = False
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            self._error = "" if self._closed.is_set() else error
