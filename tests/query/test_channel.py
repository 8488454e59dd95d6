from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from streamgauge.query.channel import ServerChannel
from streamgauge.query.frames import CHUNK_BYTES, HEADER, MAX_PAYLOAD_BYTES, Kind, WorkerChannel

Work = Callable[[WorkerChannel, socket.socket], None]


def with_worker(work: Work, test: Callable[[ServerChannel], Coroutine[Any, Any, None]]) -> None:
    """Run `work` on a thread at one end of a pair, and `test` at the other. The worker's end is closed after `work`."""

    async def main() -> None:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                work(WorkerChannel(theirs), theirs)

        thread = threading.Thread(target=run)
        thread.start()
        channel = await ServerChannel.open(ours)
        try:
            async with asyncio.timeout(20):
                await test(channel)
        finally:
            channel.close()
            await asyncio.to_thread(thread.join)

    asyncio.run(main())


def test_frames_of_any_size_arrive_as_they_were_sent() -> None:
    sizes = [0, 1, HEADER.size, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 << 20, 0, 7]

    def echo(channel: WorkerChannel, sock: socket.socket) -> None:
        while (frame := channel.receive()) is not None:
            channel.send(*frame)

    async def test(channel: ServerChannel) -> None:
        for size in sizes:
            payload = bytes(range(256)) * (size // 256) + b"." * (size % 256)
            channel.send(Kind.CHUNK, payload)
            assert await channel.receive() == (Kind.CHUNK, payload)

    with_worker(echo, test)


def test_frames_that_are_held_back_come_with_the_next() -> None:
    def work(channel: WorkerChannel, sock: socket.socket) -> None:
        channel.send(Kind.HEAD, b"{}", more=True)
        channel.send(Kind.CHUNK, b"data", more=True)
        assert channel.receive() == (Kind.REQUEST, b"go on")
        channel.send(Kind.END)

    async def test(channel: ServerChannel) -> None:
        first = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        assert not first.done()
        channel.send(Kind.REQUEST, b"go on")
        assert await first == (Kind.HEAD, b"{}")
        assert await channel.receive() == (Kind.CHUNK, b"data")
        assert await channel.receive() == (Kind.END, b"")
        assert await channel.receive() is None
        assert await channel.receive() is None

    with_worker(work, test)


def test_a_reader_that_is_behind_makes_the_worker_wait() -> None:
    sent: list[int] = []
    gave_up = threading.Event()

    def work(channel: WorkerChannel, sock: socket.socket) -> None:
        sock.settimeout(0.2)
        try:
            for number in range(1000):
                channel.send(Kind.CHUNK, bytes(CHUNK_BYTES))
                sent.append(number)
        except TimeoutError:
            gave_up.set()

    async def test(channel: ServerChannel) -> None:
        await channel.receive()
        await asyncio.to_thread(gave_up.wait)  # meanwhile the loop reads what it is willing to read
        frames = 1
        while await channel.receive() is not None:
            frames += 1
        assert frames == len(sent)
        assert frames < 50

    with_worker(work, test)


@pytest.mark.parametrize(
    "garbage",
    [HEADER.pack(99, 0), HEADER.pack(Kind.CHUNK, MAX_PAYLOAD_BYTES + 1), HEADER.pack(Kind.CHUNK, 10) + b"cut off"],
)
def test_what_is_no_frame_ends_the_channel(garbage: bytes) -> None:
    def work(channel: WorkerChannel, sock: socket.socket) -> None:
        channel.send(Kind.READY)
        sock.sendall(garbage)

    async def test(channel: ServerChannel) -> None:
        assert await channel.receive() == (Kind.READY, b"")
        assert await channel.receive() is None

    with_worker(work, test)


def test_the_worker_learns_that_the_server_is_gone_at_any_byte() -> None:
    for cut in (b"", HEADER.pack(Kind.REQUEST, 3)[:2], HEADER.pack(Kind.REQUEST, 3) + b"ab"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(cut)
            ours.close()
            assert WorkerChannel(theirs).receive() is None


def test_a_frame_that_is_too_large_is_not_sent() -> None:
    async def test(channel: ServerChannel) -> None:
        with pytest.raises(ValueError, match="frame of"):
            channel.send(Kind.REQUEST, bytes(MAX_PAYLOAD_BYTES + 1))

    with_worker(lambda channel, sock: None, test)
