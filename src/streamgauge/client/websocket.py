"""Events over a WebSocket: a text message each; the server acknowledges by text messages with the number that it has.

A reference server counts what it was sent of control frames too: as it is never pinged, those are our answers to pings,
which are taken off. websockets does the protocol; the socket is ours, so that one thread can wait for it and for more
to send.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import WebSocketURI

from streamgauge.client.address import Address
from streamgauge.client.link import INDEX_HEADER, STREAM_HEADER, Conflict, LinkFailed, Refused, expected_index, number
from streamgauge.client.waker import Waker

_READ_BYTES = 1 << 16
_WRITE_BYTES = 1 << 18
_GOODBYE_SECONDS = 1.0
_REFUSALS = {CloseCode.UNSUPPORTED_DATA, CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG}


class WebSocketLink:
    def __init__(self, address: Address, stream: str, first: int, seconds: float, waker: Waker) -> None:
        self._waker = waker
        self._outbox: deque[memoryview] = deque()
        self._pongs = 0
        self._acknowledged = 0
        self._exact = False
        self._failure: LinkFailed | None = None  # that came behind an acknowledgement
        logger = logging.Logger("websockets", logging.CRITICAL)  # not in the tree: it may lead back here
        secure = address.tls is not None
        uri = WebSocketURI(secure, address.host, address.port, address.target, "")
        self._protocol = ClientProtocol(uri, logger=logger)
        self._socket = _connect(address, seconds)
        self._selector = selectors.DefaultSelector()
        try:
            self._handshake({**address.headers, STREAM_HEADER: stream, INDEX_HEADER: str(first)}, first)
            self._socket.setblocking(False)
            self._selector.register(self._socket, selectors.EVENT_READ)
            self._selector.register(self._waker, selectors.EVENT_READ)
        except BaseException:
            self.close()
            raise

    def send(self, events: Sequence[bytes]) -> None:
        for event in events:
            self._protocol.send_text(event)
        self._collect()

    def wait(self, seconds: float | None) -> int:
        if self._failure is not None:
            raise self._failure
        self._write()
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
        self._selector.modify(self._socket, interest)
        before = self._acknowledged
        ready = {key.fileobj: events for key, events in self._selector.select(seconds)}
        if self._waker in ready:
            self._waker.clear()
        if ready.get(self._socket, 0) & selectors.EVENT_READ:
            try:
                self._read()
            except LinkFailed as failure:
                if self._acknowledged == before:
                    raise
                self._failure = failure
        return self._acknowledged

    def finish(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._collect()
            self._write()
        self._socket.settimeout(_GOODBYE_SECONDS)
        with contextlib.suppress(OSError):  # nothing depends on how the server hangs up
            while self._socket.recv(_READ_BYTES):
                pass

    def close(self) -> None:
        self._selector.close()
        self._socket.close()

    def _handshake(self, headers: dict[str, str], first: int) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        for data in self._protocol.data_to_send():
            self._socket.sendall(data)
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._receive(self._socket.recv(_READ_BYTES))
        if self._protocol.handshake_exc is not None:
            raise _handshake_failure(self._protocol.handshake_exc, first)

    def _read(self) -> None:
        try:
            while data := self._socket.recv(_READ_BYTES):
                self._receive(data)
                if not isinstance(self._socket, ssl.SSLSocket):  # which may have more that no selector tells of
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._receive(b"")

    def _receive(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._exact = expected_index(event.headers.get) is not None
            elif isinstance(event, Frame):
                self._take(event)
        if self._protocol.state is not State.CONNECTING:
            self._collect()
        if not data or self._protocol.state in (State.CLOSING, State.CLOSED):
            self._fail()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._pongs += 1
        elif frame.opcode is Opcode.TEXT:
            count = number(bytes(frame.data).decode(errors="replace"))
            if count is None:
                raise LinkFailed("the server's answer is no count of events: it is no event server")
            self._acknowledged = max(self._acknowledged, count - (0 if self._exact else self._pongs))

    def _fail(self) -> None:
        """The server said why it hangs up, or did not."""
        if self._protocol.handshake_exc is not None:
            return
        closed = self._protocol.close_rcvd
        if closed is None:
            raise LinkFailed("the server closed the connection")
        message = f"the server closed the connection: {closed.code} {closed.reason}".rstrip()
        raise Refused(message) if closed.code in _REFUSALS else LinkFailed(message)

    def _collect(self) -> None:
        """Put into few pieces what is to be sent: each piece is a system call."""
        piece = bytearray()
        for data in self._protocol.data_to_send():
            piece += data
            if len(piece) >= _WRITE_BYTES:
                self._outbox.append(memoryview(piece))
                piece = bytearray()
        if piece:
            self._outbox.append(memoryview(piece))

    def _write(self) -> None:
        """As much as the network takes now."""
        try:
            while self._outbox:
                sent = self._socket.send(self._outbox[0])
                self._outbox[0] = self._outbox[0][sent:]
                if not self._outbox[0]:
                    self._outbox.popleft()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return


def _connect(address: Address, seconds: float) -> socket.socket:
    """A connection, which waits for `seconds` at each step until told otherwise."""
    plain = socket.create_connection((address.host, address.port), seconds)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return plain if address.tls is None else address.tls.wrap_socket(plain, server_hostname=address.host)
    except BaseException:
        plain.close()
        raise


def _handshake_failure(error: Exception, first: int) -> LinkFailed:
    if not isinstance(error, InvalidStatus):
        return LinkFailed(f"the server does not speak WebSocket here: {error}")
    response = error.response
    expected = expected_index(response.headers.get)
    if response.status_code == 409 and expected is not None and expected < first:
        return Conflict(f"the server expects event {expected:,} of the stream, not {first:,}")
    body = bytes(response.body or b"").decode(errors="replace").strip()[:200]
    message = f"the server answered {response.status_code} to the WebSocket handshake: {body}".rstrip(": ")
    return LinkFailed(message, float(number(response.headers.get("Retry-After")) or 0))
