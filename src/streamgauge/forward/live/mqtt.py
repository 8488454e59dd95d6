"""Live values to an MQTT broker: a message for each, at most once."""

from __future__ import annotations

import asyncio
import re

from streamgauge.errors import BadInput, DeliveryFailed
from streamgauge.forward.live.connection import SECONDS, connected, until_one_fails, words_of
from streamgauge.forward.live.target import Given, LiveValue, MqttTarget, Take, placed
from streamgauge.wire import mqtt

_FORBIDDEN = re.compile("[/+#]")


class MqttOutlet:
    """Implements Outlet."""

    def __init__(self, target: MqttTarget) -> None:
        self._target = target

    async def run(self, take: Take, given: Given) -> None:
        target = self._target
        try:
            reader, writer = await connected(target.host, target.port, target.tls)
            try:
                await self._introduce(reader, writer)
                pongs: asyncio.Queue[None] = asyncio.Queue()
                await until_one_fails(_listen(reader, pongs), self._send(writer, pongs, take, given))
            finally:
                writer.transport.abort()
        except (OSError, EOFError, BadInput) as error:  # TimeoutError is an OSError
            raise DeliveryFailed(words_of(error, target.host, target.port)) from None

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(mqtt.connect(self._target.user, self._target.password))
        async with asyncio.timeout(SECONDS):
            mqtt.check_accepted(*await _read(reader))

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        pongs: asyncio.Queue[None],
        take: Take,
        given: Given,
    ) -> None:
        """A broker reads what comes in order: when it answers a ping, it has what was before it."""
        while True:
            values = await take()
            packets = [packet for value in values if (packet := self._packet(value))]
            writer.write(b"".join(packets))
            writer.write(mqtt.PING)
            async with asyncio.timeout(SECONDS):
                await writer.drain()
                await pongs.get()
            given(len(values) - len(packets))

    def _packet(self, value: LiveValue) -> bytes | None:
        """None where its topic is too long."""
        try:
            return mqtt.publish(placed(self._target.topic, value, _FORBIDDEN), value.message())
        except BadInput:
            return None


async def _listen(reader: asyncio.StreamReader, pongs: asyncio.Queue[None]) -> None:
    while True:
        kind, _ = await _read(reader)
        if kind == mqtt.PINGRESP and pongs.empty():
            pongs.put_nowait(None)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The kind of the next packet, and what is in it. Raises EOFError and BadInput."""
    try:
        head = await reader.readexactly(1)
        length = await reader.readexactly(1)
        while (size := mqtt.remaining(length)) is None:
            length += await reader.readexactly(1)
        return head[0] >> 4, await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise EOFError("the broker has hung up") from None
