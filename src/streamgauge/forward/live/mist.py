"""Live values to a Mist server, over TCP: a JSON object a line, {"command", "tags", "data"}."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live.connection import SECONDS, connected, until_one_fails, words_of
from streamgauge.forward.live.target import LiveValue, MistTarget


class MistOutlet:
    """Implements Outlet."""

    def __init__(self, target: MistTarget) -> None:
        self._target = target

    async def run(self, take: Callable[[], Awaitable[Sequence[LiveValue]]], given: Callable[[], None]) -> None:
        target = self._target
        try:
            reader, writer = await connected(target.host, target.port)
            try:
                await self._introduce(reader, writer)
                await until_one_fails(_listen(reader), _send(writer, take, given))
            finally:
                writer.transport.abort()
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            raise DeliveryFailed(words_of(error, target.host, target.port)) from None

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Who may not come in gets another answer to a ping, or none."""
        if self._target.token:
            writer.write(_line("auth", (), self._target.token))
        writer.write(_line("ping", (), ""))
        async with asyncio.timeout(SECONDS):
            while await _said(reader) != "ping":
                pass


async def _send(
    writer: asyncio.StreamWriter, take: Callable[[], Awaitable[Sequence[LiveValue]]], given: Callable[[], None]
) -> None:
    while True:
        values = await take()
        writer.write(b"".join(_line("publish", value.tags, value.text) for value in values))
        async with asyncio.timeout(SECONDS):
            await writer.drain()
        given()


async def _listen(reader: asyncio.StreamReader) -> None:
    while True:
        await _said(reader)


async def _said(reader: asyncio.StreamReader) -> str:
    """The command of the next message. Raises EOFError, and ValueError for one that says that something is wrong."""
    line = await reader.readline()
    if not line:
        raise EOFError("the server has hung up")
    said = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError("the server says something that is no object")
    if error := said.get("error"):
        raise ValueError(f"the server says: {str(error)[:200]}")
    return str(said.get("command", ""))


def _line(command: str, tags: Sequence[str], data: str) -> bytes:
    fields = {"command": command, "tags": tags, "data": data}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
