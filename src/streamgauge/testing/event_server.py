"""A server of event streams that is not ours: the plainest one that speaks the protocol, and misbehaves on request.

It is written from the protocol's description alone: `POST /` with JSON values, answered by their number; `GET /` with
an Upgrade, a message an event, acknowledged a burst at a time by the number of messages so far, control frames
included. It keeps events in memory. With `numbered` it also knows the headers by which a client is not stored twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

_SILENT = logging.Logger("event-server", logging.CRITICAL)
"""Not in the tree of loggers, whose records may come here as events."""


@dataclass
class Faults:
    """What a server does wrong. May be changed while it runs."""

    silent: bool = False  # it stores, and acknowledges nothing
    hang_up_after: int = -1  # events in all, after which connections end without an acknowledgement
    status: int = 200  # another one refuses each request and handshake before anything of it is stored
    headers: dict[str, str] = field(default_factory=dict)  # with such a refusal
    event_bytes: int = 1 << 40  # larger ones are refused
    gate: threading.Event = field(default_factory=threading.Event)  # it reads only while this is set

    def __post_init__(self) -> None:
        self.gate.set()


@dataclass
class Store:
    """What a server has, which outlives it."""

    numbered: bool = False
    events: list[bytes] = field(default_factory=list)
    streams: list[dict[str, str]] = field(default_factory=list)  # the headers of each request
    next_index: dict[str, int] = field(default_factory=dict)  # by the name of a stream
    lock: threading.Lock = field(default_factory=threading.Lock)

    def values(self) -> list[Any]:
        with self.lock:
            return [json.loads(event) for event in self.events]


class Conflict(Exception):
    pass


class EventServer:
    """Listens on loopback, on a free port unless told one, until it is stopped; or use it in a `with`."""

    def __init__(
        self,
        store: Store | None = None,
        port: int = 0,
        faults: Faults | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.store = store or Store()
        self.faults = faults or Faults()
        self._open: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As when the process is killed: connections end, whatever was on its way."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.faults.gate.set()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> EventServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # ---- for the handlers ----

    def enter(self, connection: socket.socket) -> None:
        self._open.add(connection)

    def leave(self, connection: socket.socket) -> None:
        self._open.discard(connection)

    def begin(self, headers: Iterable[tuple[str, str]]) -> Position:
        """Where the events of a request go. Raises Conflict."""
        named = {name.lower(): value for name, value in headers}
        with self.store.lock:
            self.store.streams.append(named)
            name = named.get("x-stream-id", "") if self.store.numbered else ""
            if not name:
                return Position("", 0)
            index = int(named["x-stream-index"])
            if index > self.store.next_index.setdefault(name, 1):
                raise Conflict
            return Position(name, index)

    def expected(self, position: Position) -> dict[str, str]:
        with self.store.lock:
            known = self.store.next_index.get(position.name)
            return {} if known is None else {"X-Stream-Next": str(known)}

    def insert(self, position: Position, event: bytes) -> None:
        """Raises ValueError for what is no JSON, OverflowError for what is too large, ConnectionError as a fault."""
        self.faults.gate.wait()
        if len(event) > self.faults.event_bytes:
            raise OverflowError
        json.loads(event)
        with self.store.lock:
            if not position.name or position.index == self.store.next_index[position.name]:
                self.store.events.append(event)
                if position.name:
                    self.store.next_index[position.name] += 1
            position.index += 1
            if len(self.store.events) == self.faults.hang_up_after:
                raise ConnectionError


@dataclass
class Position:
    """Of the next event of a request: in which stream, at which index."""

    name: str
    index: int


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whatever a client does is no news."""


def _handler(owner: EventServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        server_of_events = owner

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_events: EventServer

    def setup(self) -> None:
        super().setup()
        self.server_of_events.enter(self.connection)

    def finish(self) -> None:
        self.server_of_events.leave(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Not a word."""

    def do_POST(self) -> None:
        server = self.server_of_events
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if server.faults.status != 200:
            return self._answer(server.faults.status, "no", server.faults.headers)
        try:
            position = server.begin(self.headers.items())
        except Conflict:
            name = self.headers["X-Stream-Id"]
            return self._answer(409, "conflict", server.expected(Position(name, 0)))
        count, status = 0, 200
        try:
            for value in body.split(b"\n"):
                if value:
                    server.insert(position, value)
                    count += 1
        except (ValueError, OverflowError) as error:
            status = 413 if isinstance(error, OverflowError) else 400
        except ConnectionError:
            self.close_connection = True
            return None
        if server.faults.silent:
            server.faults.gate.clear()
            server.faults.gate.wait()
        return self._answer(status, str(count), server.expected(position))

    def do_GET(self) -> None:
        server = self.server_of_events
        if server.faults.status != 200:
            return self._answer(server.faults.status, "no", server.faults.headers)
        try:
            position = server.begin(self.headers.items())
        except Conflict:
            return self._answer(409, "conflict", server.expected(Position(self.headers["X-Stream-Id"], 0)))
        response = ServerProtocol(logger=_SILENT).accept(Request(self.path, Headers(self.headers.items())))
        for name, value in server.expected(position).items():
            response.headers[name] = value
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.sendall(response.serialize())
            self._serve(ServerProtocol(state=State.OPEN, logger=_SILENT), position)
        return None

    def _serve(self, protocol: ServerProtocol, position: Position) -> None:
        """The messages of a WebSocket, a burst after the other."""
        count = 0
        while True:
            for data in protocol.data_to_send():
                if not data:
                    return
                self.connection.sendall(data)
            self.server_of_events.faults.gate.wait()
            data = self.connection.recv(1 << 16)
            if not data:
                return
            protocol.receive_data(data)
            frames = [event for event in protocol.events_received() if isinstance(event, Frame)]
            ended = False
            for frame in frames:
                count += 1
                if frame.opcode is Opcode.BINARY and not frame.data:
                    ended = True
                elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    try:
                        self.server_of_events.insert(position, bytes(frame.data))
                    except OverflowError:
                        protocol.send_text(str(count - 1).encode())
                        protocol.send_close(1009, "too large")
                        ended = True
                        break
                    except ValueError:
                        return
            if frames and not self.server_of_events.faults.silent and protocol.close_rcvd is None:
                with contextlib.suppress(Exception):
                    protocol.send_text(str(count).encode())
            if ended:
                for data in protocol.data_to_send():
                    self.connection.sendall(data)
                return

    def _answer(self, status: int, body: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain; charset=utf-8", **headers}.items():
            self.send_header(name, value)
        data = body.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
