"""`streamgauge poll`: what a data reader has, handed to a gRPC store at each boundary of the interval."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing

import click

from streamgauge.clock import Clock, SystemClock
from streamgauge.commands.grpc_peer import peer
from streamgauge.durations import parse_duration
from streamgauge.errors import BadInput, FetchFailed, StreamgaugeError
from streamgauge.rpc.channel import Peer, RpcChannel, RpcFailed
from streamgauge.wire.timeseries import EMPTY, GET_DATA, INSERT_ROWS

SHORTEST_TIMEOUT_MS = 1_000
GOODBYE = "Starting graceful shut down now."


def run_poll(
    reader: str,
    store: str,
    interval: str,
    timeout: str | None,
    reader_ca_file: str | None,
    ca_file: str | None,
    token_file: str | None,
) -> int:
    """Until SIGINT or SIGTERM. Raises BadInput for arguments that make no sense."""
    every = parse_duration(interval)
    limit = parse_duration(timeout) if timeout else min(max(SHORTEST_TIMEOUT_MS, every // 10), every)
    if not 0 < limit <= every:
        raise BadInput("the timeout must be more than 0, and no longer than the interval")
    relay = Relay(peer(reader, reader_ca_file, token=False), peer(store, ca_file, token_file), limit / 1000)
    return asyncio.run(_run(relay, every, SystemClock()))


async def _run(relay: Relay, interval: int, clock: Clock) -> int:
    polling = asyncio.create_task(relay.run(interval, clock))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            click.echo(GOODBYE)
        stopped = True
        polling.cancel()

    if sys.platform == "win32":
        signal.signal(signal.SIGINT, lambda *_: asyncio.get_running_loop().call_soon_threadsafe(stop))
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await polling
    except asyncio.CancelledError:
        if not stopped:
            raise
    return 0


class ReaderFailed(FetchFailed):
    """It, and not the store."""


class Relay:
    """From one reader to one store. seconds: that a poll may take, both ways."""

    def __init__(self, reader: Peer, store: Peer, seconds: float) -> None:
        self._peers = (reader, store)
        self._seconds = seconds
        self._channels: list[RpcChannel] = []
        self._said = ""

    async def run(self, interval: int, clock: Clock) -> None:
        """At each multiple of `interval` (ms), from the next one on, until cancelled."""
        due = clock.now_ms()
        try:
            while True:
                due = due + interval - due % interval
                await clock.sleep(max(0.0, (due - clock.now_ms()) / 1000))
                await self.poll()
                now = clock.now_ms()
                due = now if abs(now - due) > interval else max(due, now)  # the clock may have been set
        finally:
            await self.close()

    async def poll(self) -> None:
        """Hand the reader's data on, byte for byte. What goes wrong is told once, and again when it is another thing;
        the connections are made anew then."""
        try:
            count = await self._relay()
        except StreamgaugeError as error:
            await self.close()
            self._say(error.message)
        else:
            if self._said:
                self._say(f"{count} rows are relayed again")
                self._said = ""

    async def _relay(self) -> int:
        """How many rows."""
        if not self._channels:
            self._channels = [RpcChannel(one) for one in self._peers]
        reader, store = self._channels
        count = 0

        async def rows() -> AsyncIterator[bytes]:
            nonlocal count
            try:
                async with aclosing(reader.read(GET_DATA, EMPTY, self._seconds)) as messages:
                    async for message in messages:
                        count += 1
                        yield message
            except RpcFailed as error:
                raise ReaderFailed(f"the reader at {self._peers[0].address}: {error.message}") from None

        try:
            await store.send(INSERT_ROWS, rows(), self._seconds)
        except RpcFailed as error:
            raise FetchFailed(f"the store at {self._peers[1].address}: {error.message}") from None
        return count

    async def close(self) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            await channel.close()

    def _say(self, text: str) -> None:
        if text != self._said:
            click.echo(text, err=True)
        self._said = text
