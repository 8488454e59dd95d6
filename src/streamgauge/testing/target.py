"""A scrape target, or what is pushed to, whose every answer a test writes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

TEXT = "text/plain; version=0.0.4"


def answer(
    body: bytes | str, content_type: str = TEXT, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole HTTP answer."""
    raw = body.encode() if isinstance(body, str) else body
    head = {"content-type": content_type, "content-length": str(len(raw)), **(headers or {})}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in head.items() if value)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


@dataclass(slots=True)
class Request:
    target: str  # of the request line
    headers: dict[str, str]  # names in lower case
    method: str = "GET"
    body: bytes = b""


@dataclass(slots=True)
class HttpTarget:
    """Answers each request with `reply`: bytes as they are, or what a function makes of the request. None keeps the
    client waiting. `close` ends the connection after an answer."""

    reply: bytes | Callable[[Request], bytes | None] = field(default_factory=lambda: answer("a 1\n"))
    close: bool = False
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/metrics") -> str:
        return f"http://{self.address}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.strip().split("\r\n")
                pairs = (text.partition(":") for text in rest)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                method, where, _ = line.split(" ")
                if headers.get("transfer-encoding") == "chunked":
                    body = await _chunks(reader)
                else:
                    body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(where, headers, method, body)
                self.requests.append(request)
                reply = self.reply(request) if callable(self.reply) else self.reply
                if reply is None:
                    await reader.read()
                    break
                writer.write(reply)
                await writer.drain()
                if self.close:
                    break
        writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body without trailers."""
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += await reader.readexactly(size)
        await reader.readline()
        if not size:
            return body


@contextlib.asynccontextmanager
async def http_target(context: ssl.SSLContext | None = None) -> AsyncIterator[HttpTarget]:
    """One on a free loopback port, for as long as the `with`."""
    target = HttpTarget()
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0, ssl=context)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        server.close()
