"""A data reader, asked by a client that knows nothing but the definition."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from streamgauge.client import Datum, Reader
from streamgauge.errors import ListenFailed
from streamgauge.testing.certificates import CertificateAuthority
from streamgauge.testing.server import SECONDS
from streamgauge.testing.time_series import messages


def ask(channel: grpc.Channel, token: str = "") -> list[tuple[str, dict[str, str], float, int]]:
    call = channel.unary_stream("/proto.Telemetry/GetTimeSeriesData")
    metadata = [("authorization", f"Bearer {token}")] if token else None
    return [
        (
            datum.metric,
            {label.name: label.value for label in datum.labels},
            datum.value,
            datum.timestamp.ToNanoseconds(),
        )
        for datum in map(messages()["TelemetryDatum"].FromString, call(b"", timeout=SECONDS, metadata=metadata))
    ]


def test_a_function_becomes_a_reader() -> None:
    def read() -> Iterator[Datum]:
        yield Datum("temperature", 21.5, {"room": "kitchen"}, 1_700_000_000_123_456_789)
        yield Datum("up", 1.0)

    before = time.time_ns()
    with Reader(read, "127.0.0.1:0") as reader, grpc.insecure_channel(reader.address) as channel:
        first, second = ask(channel)
        assert first == ("temperature", {"room": "kitchen"}, 21.5, 1_700_000_000_123_456_789)
        assert second[:3] == ("up", {}, 1.0)
        assert before <= second[3] <= time.time_ns()
        assert ask(channel)[0] == first
        assert (reader.polls, reader.failures) == (2, 0)


def test_an_async_generator_becomes_a_reader() -> None:
    async def read() -> AsyncIterator[Datum]:
        for number in range(3):
            await asyncio.sleep(0)
            yield Datum("n", float(number), time=number)

    with Reader(read, "127.0.0.1:0") as reader, grpc.insecure_channel(reader.address) as channel:
        assert [value for _, _, value, _ in ask(channel)] == [0.0, 1.0, 2.0]


def test_an_async_generator_has_one_task_as_its_timeouts_and_task_groups_need() -> None:
    async def read() -> AsyncIterator[Datum]:
        first = asyncio.current_task()
        async with asyncio.TaskGroup() as group:
            measured = group.create_task(asyncio.sleep(0, 2.0))
            yield Datum("n", 1.0)
            yield Datum("n", await measured)
        yield Datum("same", float(asyncio.current_task() is first))

    with Reader(read, "127.0.0.1:0") as reader, grpc.insecure_channel(reader.address) as channel:
        assert [value for _, _, value, _ in ask(channel)] == [1.0, 2.0, 1.0]


HANGS = """
import sys, threading, grpc
from streamgauge.client import Reader

reader = Reader(threading.Event().wait, "127.0.0.1:0")
channel = grpc.insecure_channel(reader.address)
polls = [channel.unary_stream("/proto.Telemetry/GetTimeSeriesData")(b"") for _ in range(5)]
for line in sys.stdin:
    break
for poll in polls:
    poll.cancel()
reader.close()
print("closed")
"""


def test_functions_that_hang_are_warned_of_and_hold_nobody_at_the_end() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", HANGS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stderr is not None
        assert "4 polls are still being answered" in str(program.stderr.readline())
        said, _ = program.communicate("\n", timeout=SECONDS)
        assert (said, program.returncode) == ("closed\n", 0)
    finally:
        program.kill()
        program.wait()


def test_a_function_that_fails_costs_its_poll_alone(caplog: pytest.LogCaptureFixture) -> None:
    working = False

    def read() -> Iterator[Datum]:
        yield Datum("n", 1.0)
        if not working:
            raise ZeroDivisionError

    with Reader(read, "127.0.0.1:0") as reader, grpc.insecure_channel(reader.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel)
        assert caught.value.code() is StatusCode.INTERNAL
        assert "ZeroDivisionError" not in caught.value.details()
        assert "ZeroDivisionError" in caplog.text
        working = True
        assert len(ask(channel)) == 1
        assert (reader.polls, reader.failures) == (1, 1)


def test_a_token_is_asked_for_over_tls(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    pair = authority.issue("CN=reader")
    trusted = grpc.ssl_channel_credentials(authority.file.read_bytes())
    made = Reader(lambda: [Datum("n", 1.0)], "127.0.0.1:0", cert_file=str(pair.cert), key_file=str(pair.key), token="T")
    with made as reader, grpc.secure_channel(reader.address, trusted) as channel:
        assert len(ask(channel, "T")) == 1
        for token in ("", "U"):
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel, token)
            assert caught.value.code() is StatusCode.UNAUTHENTICATED


def test_an_address_that_is_taken_is_said() -> None:
    with Reader(lambda: (), "127.0.0.1:0") as reader, pytest.raises(ListenFailed, match=reader.address):
        Reader(lambda: (), reader.address)
