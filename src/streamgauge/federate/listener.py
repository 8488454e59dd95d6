"""What the client answers on --listen: how it is, what it counts, what it sent last; and POST /-/reload.

A few small GETs: one request a connection, without a body, read within seconds. The server's own listener
(`serve/`) would bring the query engine along.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from streamgauge.errors import BadInput, ConfigError, ListenFailed
from streamgauge.federate.worker import Worker
from streamgauge.wire import metric_family_text

MAX_HEAD_BYTES = 16_384
HEAD_SECONDS = 10
"""Within which a request must have come whole."""
MAX_CONNECTIONS = 64
"""At a time: those that scrape it, and people. More are closed at once."""
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Reply:
    status: HTTPStatus
    body: bytes
    content_type: str = _PLAIN

    def encoded(self) -> bytes:
        lines = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body)}",
            "connection: close",
        )
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


class Listener:
    """reload: reads the configuration again; raises ConfigError when it is none."""

    def __init__(self, worker: Worker, reload: Callable[[], None]) -> None:
        self._worker = worker
        self._reload = reload
        self._connections: set[asyncio.Task[None]] = set()
        self._names: set[str] = set()

    async def start(self, address: str) -> asyncio.Server:
        """Listen on host:port. Raises ListenFailed."""
        host, _, port = address.rpartition(":")
        self._names = {"localhost", host.strip("[]").lower(), socket.gethostname().lower()}
        try:
            return await asyncio.start_server(self._accept, host.strip("[]") or None, int(port), limit=MAX_HEAD_BYTES)
        except OSError as error:
            words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ListenFailed(f"--listen {address}: {words.lower()}") from None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) < MAX_CONNECTIONS:
            self._connections.add(task)
            try:
                with suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(HEAD_SECONDS):
                        await self._serve(reader, writer)
            finally:
                self._connections.discard(task)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, version = head[0].split(" ")
            if not version.startswith("HTTP/1."):
                raise ValueError(version)
        except asyncio.IncompleteReadError:
            return
        except (ValueError, asyncio.LimitOverrunError):
            reply = _text(HTTPStatus.BAD_REQUEST, "this is no request that is answered here")
        else:
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            path = target.partition("?")[0]
            reply = self._refusal(headers) or self._reply(method, path)
        writer.write(reply.encoded())
        await writer.drain()

    def _refusal(self, headers: dict[str, str]) -> _Reply | None:
        """A page that a browser shows must not reach this by a name of its own, or at all."""
        host = headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.strip("[]") not in self._names and not _is_address(name.strip("[]")):
            return _text(HTTPStatus.FORBIDDEN, "the Host is not a name of this client")
        origin = headers.get("origin", "")
        if origin and origin.lower().partition("://")[2] != host:
            return _text(HTTPStatus.FORBIDDEN, "requests from other sites' pages are refused")
        return None

    def _reply(self, method: str, path: str) -> _Reply:
        routes: dict[str, tuple[tuple[str, ...], Callable[[], _Reply]]] = {
            "/": (("GET", "HEAD"), lambda: _text(HTTPStatus.OK, "\n".join(routes))),
            "/federate": (("GET",), self._federate),
            "/healthz": ((), lambda: _text(HTTPStatus.OK, "ok")),
            "/healthz/ready": ((), self._ready),
            "/metrics": (("GET", "HEAD"), self._metrics),
            "/-/reload": (("POST",), self._reload_now),
        }
        if path not in routes:
            return _text(HTTPStatus.NOT_FOUND, "404 page not found")
        methods, answer = routes[path]
        if methods and method not in methods:
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} is for {' and '.join(methods)}")
        return answer()

    def _federate(self) -> _Reply:
        return _Reply(
            HTTPStatus.OK, b"".join(metric_family_text.encode(self._worker.sent)), metric_family_text.CONTENT_TYPE
        )

    def _ready(self) -> _Reply:
        problems = self._worker.status.problems()
        if problems:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(problems))
        return _text(HTTPStatus.OK, "ok")

    def _metrics(self) -> _Reply:
        families = self._worker.metrics.families()
        return _Reply(HTTPStatus.OK, b"".join(metric_family_text.encode(families)), metric_family_text.CONTENT_TYPE)

    def _reload_now(self) -> _Reply:
        try:
            self._reload()
        except (ConfigError, BadInput) as error:
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, f"nothing is changed: {error.message}")
        return _text(HTTPStatus.OK, "ok")


def _text(status: HTTPStatus, text: str) -> _Reply:
    return _Reply(status, f"{text}\n".encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
