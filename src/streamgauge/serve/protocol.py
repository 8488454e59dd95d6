"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, and the limits it lacks.

What is added: a bound on the header section in bytes and seconds, on the request target, on pipelined requests, a floor
under the rates of a request's body and of an answer's reader, an answer (not a reset) for what is refused, and an abort
(not an orderly end, which would look whole) when an answer fails in the middle. An application that answers 101 to a
request to upgrade has a WebSocket from then on, for which the connection keeps reading and writing. A small request of
what is taken promptly (`serve.prompt`) waits for its body before anything is called.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from streamgauge.serve.connections import HELD_BODY, PATIENT, UPGRADE, ConnectionTable, Stage, Upgrade
from streamgauge.serve.prompt import Prompts, Whole
from streamgauge.serve.websocket import SWITCHING, WebSocket

if TYPE_CHECKING:
    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        HTTPResponseStartEvent,
        HTTPScope,
    )
    from uvicorn.config import Config
    from uvicorn.server import ServerState

logger = logging.getLogger(__name__)

Cycle = RequestResponseCycle

_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class _Refused(Exception):
    """Raised out of a parser callback to stop parsing; the answer has been written."""


class _BodyOnly:
    """What a parser tells of a message whose header others have read."""

    def __init__(self, connection: Connection) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


class Connection(HttpToolsProtocol):
    """One client's connection. Created by the listener for each socket it accepts."""

    stage: Stage
    since: float

    def __init__(
        self,
        config: Config,
        state: ServerState,
        table: ConnectionTable,
        loop: asyncio.AbstractEventLoop,
        prompts: Prompts,
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._application: ASGI3Application = self.app
        self.app = self._run
        self.stage = Stage.HEADER
        self.since = 0.0
        self._table = table
        self._limits = table.limits
        self._live: deque[Cycle] = deque()  # requests begun and not yet seen to be answered, oldest first
        self._in_header = True
        self._unparsed = 0  # bytes received since the parser last had something to show for them
        self._progress = False  # whether the piece being parsed completed a header, gave body, or ended a message
        self._feeding = 0  # size of the piece being parsed
        self._body_bytes = 0
        self._body_seconds = 0.0
        self._stalled_seconds = 0.0  # for which this request's answer waited for its reader
        self._drained_bytes = 0  # which the reader took in that time
        self._buffered = 0  # bytes unread when writing was last paused
        self._upgrade: Upgrade | None = None  # asked for by the request that is being answered
        self._framing = b""  # of the body that a request to upgrade has: the parser takes it for none
        self._beyond: bytes | None = None  # what came after that request, which is no HTTP
        self._socket: WebSocket | None = None
        self._extensions: dict[str, dict[object, object]] = {}  # of each request's scope
        self._prompts = prompts
        self._held: Cycle | None = None  # a request that waits for its body
        self._held_bytes = 0  # of that body

    # ---- transport callbacks --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if (certificate := transport.get_extra_info("peercert")) is not None:
            self._extensions = {"tls": {"client_cert": certificate}}
        if not self._table.add(self):
            self._refuse("no_room", 503, "the server is at its limit of connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.discard(self)
        for cycle in self._live:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        self._let_go()
        if self._socket is not None:
            self._socket.lost()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._socket is not None:
            self._socket.go_away()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.received(data)
            return
        if self.stage is Stage.ENDING and self._in_header:
            return
        if self._beyond is not None:
            self._keep_beyond(data)
            return
        self._progress = False
        self._feeding = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            # What follows is not HTTP/1.1 any more, also where the wish is ignored, as it may be.
            self.cycle.keep_alive = False
            if self._framing:
                self._read_body(data[error.args[0] :])
                return
            self._beyond = b""
            self._keep_beyond(data[error.args[0] :])
        except httptools.HttpParserError as error:
            if self.stage is not Stage.ENDING and not isinstance(error.__context__, _Refused):
                self._refuse("malformed", 400, "this is not an HTTP/1.1 request")
            return
        if not self._progress:
            self._count_unparsed(len(data))
        if self._in_header and self.stage is Stage.IDLE:
            self._table.move(self, Stage.HEADER)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._buffered = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._socket is not None:
            self._socket.writable()
        self._drained_bytes += self._buffered - self.transport.get_write_buffer_size()

    # ---- parser callbacks -----------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._check_header()
        super().on_headers_complete()
        self._upgrade = None
        if self._extensions:
            self.scope["extensions"] = self._extensions
        if self.parser.should_upgrade():
            self._framing = _framing(self.scope["headers"])
        if (
            self.parser.should_upgrade()
            and not self._framing
            and (self.scope["method"], self.scope["http_version"]) == ("GET", "1.1")
        ):
            self._upgrade = Upgrade()
            self.scope["extensions"] = {**self._extensions, UPGRADE: self._upgrade}  # type: ignore[dict-item]
        # Trailers must not join the headers that were checked.
        self.headers = deque(maxlen=0)  # type: ignore[assignment]
        self._in_header = False
        self._advance()
        while self._live and self._live[0].response_complete:
            self._live.popleft()
        self._live.append(self.cycle)
        if len(self._live) == 1:
            self._start_counting()
            if self.stage is not Stage.REQUEST:
                self._table.move(self, Stage.REQUEST)
        elif len(self._live) > self._limits.pipelined:
            self._abort("pipelined")
            raise _Refused

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._advance()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._framing:
            return  # its body is to come
        super().on_message_complete()
        if (held := self._let_go()) is not None:
            self._begin_or_start(held)
        self._in_header = True
        self._advance()
        if self.stage is Stage.ENDING and not self.transport.is_closing():
            self._table.move(self, Stage.IDLE)

    def on_response_complete(self) -> None:
        if self.pipeline and not self.transport.is_closing():
            self._start_counting()
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if self.transport.is_closing() or not self._in_header:
            self._table.move(self, Stage.ENDING)
        else:
            self._table.move(self, Stage.HEADER if self._unparsed else Stage.IDLE)
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # ---- limits ---------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        if self.stage is Stage.HEADER and self._unparsed:
            self._refuse("header_timeout", 408, "the request's header did not arrive in time")
        elif self.stage is Stage.ENDING or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def evict(self) -> None:
        # Not close(): it would wait for a reader that may never come.
        self.transport.abort()

    def check_rates(self, seconds: float) -> None:
        if self._socket is not None:
            self._socket.check(seconds)
            return
        limits, cycle = self._limits, self.cycle
        if self.flow.write_paused:
            self._stalled_seconds += seconds
            drained = self._drained_bytes + self._buffered - self.transport.get_write_buffer_size()
            if self._stalled_seconds > limits.grace_seconds and drained < limits.answer_rate * self._stalled_seconds:
                self._abort("reader_too_slow")
                return
        waited_for = cycle.more_body and not cycle.waiting_for_100_continue and not cycle.scope["state"].get(PATIENT)
        if waited_for and not self.flow.read_paused:
            self._body_seconds += seconds
            if self._body_bytes < limits.body_rate * (self._body_seconds - limits.grace_seconds):
                self._refuse("body_too_slow", 408, "the request's body did not arrive in time")

    def _advance(self) -> None:
        self._progress = True
        self._unparsed = 0

    def _start_counting(self) -> None:
        self._body_bytes = 0
        self._body_seconds = self._stalled_seconds = 0.0
        self._drained_bytes = 0

    def _check_header(self) -> None:
        if len(self.url) > self._limits.target_bytes:
            self._refuse(
                "header_too_large", 414, f"the request target is longer than {self._limits.target_bytes} bytes"
            )
            raise _Refused
        if self._unparsed + self._feeding > self._limits.header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.header_bytes:
                self._refuse_header()
                raise _Refused

    def _count_unparsed(self, size: int) -> None:
        """A header that does not end, or chunk extensions and trailers without a body: the parser keeps all of it."""
        self._unparsed += size
        if self._unparsed > self._limits.header_bytes:
            self._refuse_header()

    def _refuse_header(self) -> None:
        self._refuse("header_too_large", 431, f"the request's header is longer than {self._limits.header_bytes} bytes")

    def _refuse(self, reason: str, status: int, message: str) -> None:
        """Answer and close, if the answer would stand where the client expects it; else abort."""
        waiting = [cycle for cycle in self._live if not cycle.response_complete]
        receiving = len(waiting) == 1 and waiting[0].more_body and not waiting[0].response_started
        if (waiting and not receiving) or self.transport.is_closing():
            self._abort(reason)
            return
        self._table.closed[reason] += 1
        for cycle in waiting:
            cycle.disconnected = True
            cycle.message_event.set()
        body = f"{message}\n".encode()
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        self._linger()

    def _linger(self) -> None:
        """End our side and throw away what still comes: closing with unread input would reset the connection, and
        the client might never see the answer."""
        self._in_header = True
        self.flow.resume_reading()
        self._table.move(self, Stage.ENDING)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _abort(self, reason: str) -> None:
        self._table.closed[reason] += 1
        self.break_off()

    def break_off(self) -> None:
        # By a reset: an orderly close could be taken for the end of an answer.
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    # ---- upgrades ------------------------------------------------------------------------------------------------

    def _read_body(self, data: bytes) -> None:
        """Read the body of a request that wants to upgrade, as Java's client does with each of its first ones. It is
        answered as if it had not wanted to (RFC 9110, 7.8), and is the last one on its connection."""
        self.parser = httptools.HttpRequestParser(_BodyOnly(self))
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % self._framing)
        self._framing = b""
        if data:
            self.data_received(data)

    def _keep_beyond(self, data: bytes) -> None:
        """Keep what a client sends before it has the answer to its wish to upgrade."""
        self._beyond = (self._beyond or b"") + data
        if len(self._beyond) > self._limits.header_bytes:
            self._abort("upgrade_overrun")

    def _switch(self, cycle: Cycle, upgrade: Upgrade, answer: HTTPResponseStartEvent) -> None:
        """Send the answer, and read and write a WebSocket from then on."""
        lines = [b"%b: %b\r\n" % (name, value) for name, value in (*cycle.default_headers, *answer["headers"])]
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(lines) + b"\r\n")
        cycle.response_started = cycle.response_complete = True
        socket, beyond = WebSocket(self, upgrade.limit), self._beyond
        self._socket = upgrade.socket = socket
        if beyond:
            socket.received(beyond)
        self.flow.resume_reading()

    def hang_up(self) -> None:
        self._socket = None
        self._linger()

    def give_up(self, reason: str) -> None:
        self._abort(reason)

    # ---- prompt requests ------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: Cycle, app: ASGI3Application) -> None:
        if cycle.scope["path"] not in self._prompts.paths:
            self._start(cycle)
        elif not cycle.more_body:
            self._begin_or_start(cycle)
        elif (size := _body_size(cycle)) and self._table.hold(size):
            self._held, self._held_bytes = cycle, size
        else:
            self._start(cycle)

    def _start(self, cycle: Cycle) -> None:
        super()._start_asgi_task(cycle, self.app)

    def _let_go(self) -> Cycle | None:
        """The request that waits for its body: no longer."""
        held, self._held = self._held, None
        if held is not None:
            self._table.let_go(self._held_bytes)
        return held

    def _begin_or_start(self, cycle: Cycle) -> None:
        if self.flow.write_paused:  # the application waits until its client reads
            self._start(cycle)
            return
        listed: list[tuple[bytes, bytes]] = cycle.scope["headers"]  # type: ignore[assignment]
        headers = dict(listed)
        request = Whole(cycle.scope, headers, bytes(cycle.body), partial(self._respond, cycle))  # type: ignore[arg-type]
        try:
            begun = len(headers) == len(listed) and self._prompts.begin(request)
        except Exception:
            logger.exception("%s %s is answered by the application", cycle.scope["method"], cycle.scope["path"])
            begun = False
        if begun:
            cycle.body.clear()  # which nobody accounts for from now on
        else:
            self._start(cycle)

    def _respond(self, cycle: Cycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        if cycle.disconnected or self.transport.is_closing():
            return
        lines = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n", body) if cycle.keep_alive else (b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(lines))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    # ---- the application ------------------------------------------------------------------------------------------

    async def _run(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Run the application for one request. What it raises ends here: it answers errors itself, so an exception
        means that the answer could not be finished."""
        cycle = next(cycle for cycle in self._live if cycle.scope is scope)
        upgrade = self._upgrade

        async def send_or_switch(message: ASGISendEvent) -> None:
            if upgrade is None or message["type"] != "http.response.start" or message["status"] != SWITCHING:
                await send(message)
            elif not cycle.disconnected:
                self._switch(cycle, upgrade, message)

        try:
            await self._application(scope, receive, send if upgrade is None else send_or_switch)
        except asyncio.CancelledError:
            cycle.disconnected = True
            self.break_off()
        except Exception:
            if cycle.response_started:
                logger.warning("answer to %s %s broken off", scope["method"], scope["path"], exc_info=True)
                cycle.disconnected = True
                self.break_off()
            else:
                logger.exception("no answer to %s %s", scope["method"], scope["path"])
                await cycle.send_500_response()


def _body_size(cycle: Cycle) -> int:
    """Bytes of a body that its client sends unasked and says the size of, where that is small; else 0."""
    if cycle.waiting_for_100_continue:
        return 0
    for name, value in cycle.scope["headers"]:
        if name == b"content-length":
            size = int(value) if value.isdigit() else 0
            return size if size <= HELD_BODY else 0
    return 0


def _framing(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The header that says how long a body is; b"" where there is none. The parser has refused more than one."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return name + b": " + value
    return b""
