"""What tests of authorities share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import pytest

from streamgauge.clock import ManualClock
from streamgauge.http.client import Resolver


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


@dataclass
class Answering:
    """An HTTP server that answers each request as it is told, and keeps what it was asked."""

    port: int = 0
    status: int = 200
    kind: str = "application/json"
    body: bytes = b'{"account_id":"me"}'
    headers: str = ""
    silent: bool = False  # takes requests and does not answer
    asked: list[bytes] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    choose: Callable[[str, bytes], tuple[int, bytes] | None] = lambda head, body: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/authorize?x=1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
                body = await reader.readexactly(length)
                self.heads.append(head)
                self.asked.append(body)
                self.arrived.set()
                if self.silent:
                    await self.go_on.wait()
                status, answer = self.choose(head, body) or (self.status, self.body)
                lines = f"HTTP/1.1 {status} Said\r\ncontent-type: {self.kind}\r\n{self.headers}"
                writer.write(f"{lines}content-length: {len(answer)}\r\n\r\n".encode() + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def authority() -> AsyncIterator[Answering]:
    answering = Answering()
    server = await asyncio.start_server(answering.handle, "127.0.0.1", 0)
    answering.port = server.sockets[0].getsockname()[1]
    yield answering
    server.close()


def members(body: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(body)
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
