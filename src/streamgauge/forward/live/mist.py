"""Live values to a Mist server, over TCP: a JSON object a line, {"command", "tags", "data"}."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from streamgauge.errors import DeliveryFailed
from streamgauge.forward.live.connection import SECONDS, connected, until_one_fails, words_of
from streamgauge.forward.live.target import Given, MistTarget, Take


class MistOutlet:
    """Implements Outlet."""

    def __init__(self, target: MistTarget) -> None:
        self._target = target

    async def run(self, take: Take, given: Given) -> None:
        target = self._target
        try:
            reader, writer = await connected(target.host, target.port)
            try:
                await self._introduce(reader, writer)
                pongs: asyncio.Queue[None] = asyncio.Queue()
                await until_one_fails(_listen(reader, pongs), _send(writer, pongs, take, given))
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


async def _send(writer: asyncio.StreamWriter, pongs: asyncio.Queue[None], take: Take, given: Given) -> None:
    """A server handles what comes in order: when it answers a ping, it has what was before it."""
    while True:
        values = await take()
        writer.write(b"".join(_line("publish", value.tags, value.text) for value in values))
        writer.write(_line("ping", (), ""))
        async with asyncio.timeout(SECONDS):
            await writer.drain()
            await pongs.get()
        given(0)


async def _listen(reader: asyncio.StreamReader, pongs: asyncio.Queue[None]) -> None:
    while True:
        if await _said(reader) == "ping" and pongs.empty():
            pongs.put_nowait(None)


async def _said(reader: asyncio.StreamReader) -> str:
    """The command of the next message. Raises EOFError, and ValueError for one that says that something is wrong."""
    line = await reader.readline()
    if not line:
        raise EOFError("the server has hung up")
    try:
        said = json.loads(line)
    except RecursionError:
        raise ValueError("the server says something that is nested too deeply") from None
    if not isinstance(said, dict):
        raise ValueError("the server says something that is no object")
    if error := said.get("error"):
        raise ValueError(f"the server says: {str(error)[:200]}")
    return str(said.get("command", ""))


def _line(command: str, tags: Sequence[str], data: str) -> bytes:
    fields = {"command": command, "tags": tags, "data": data}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
