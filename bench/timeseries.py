"""Time series over gRPC: rows into the store beside a handler that does nothing, and a thousand readers polled."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil

from bench.peers import Server, running
from bench.report import Row
from streamgauge.wire.timeseries import INSERT_ROWS, SECOND, encode_datum

ROWS, SERIES = 60_000, 2_000
READERS, OF_EACH = 1_000, 50
POLL_SECONDS = 30
EMPTY = """
import asyncio, grpc, grpc.aio
async def rows(messages, context):
    async for message in messages:
        pass
    return b""
async def main():
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.stream_unary_rpc_method_handler(rows)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("proto.TStorage", {"InsertRows": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()
asyncio.run(main())
"""


def insert() -> list[Row]:
    """Alternating, so that a machine that is busy for a while is so for both."""
    ours, empty = 0.0, 0.0
    with _store() as (server, address), _started([sys.executable, "-c", EMPTY]) as (process, port):
        other = psutil.Process(process.pid)
        for number in range(-1, 3):
            before = server.cpu_seconds()
            _send(address, number)
            between = _seconds(other)
            ours += (server.cpu_seconds() - before) * (number >= 0)
            _send(f"127.0.0.1:{port}", number)
            empty += (_seconds(other) - between) * (number >= 0)
    ratio = empty / ours
    work = "InsertRows stream, 5 labels, fsynced, rows per CPU second; peer: an empty handler on the same library"
    return [Row(work, f"{3 * ROWS / ours:.0f}", f"{3 * ROWS / empty:.0f}", ratio, "0.6", ratio >= 0.6)]


def poll() -> list[Row]:
    """From a boundary until every series of every reader is stored. The first time all of them are new."""
    with (
        _started([sys.executable, "-m", "bench.readers", str(OF_EACH)]) as (_, port),
        tempfile.TemporaryDirectory() as at,
    ):
        config = Path(at) / "readers.json"
        groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"n": str(number)}} for number in range(READERS)]
        polls = {"job_name": "r", "interval": f"{POLL_SECONDS}s", "timeout": "25s", "static_configs": groups}
        config.write_text(json.dumps({"grpc_poll_configs": [polls]}))
        with running(
            "streamgauge", ["--config", str(config), "--grpc-listen", "off", "--no-self-monitoring"]
        ) as server:
            first, _ = _polled(server)
            took, cores = _polled(server)
    work = f"poll of {READERS} readers of {OF_EACH} series: from the boundary until all are stored, CPU; the first time"
    ours = f"{took:.1f} s, {cores:.1f} CPU s; {first:.1f} s"
    return [Row(work, ours, "–", None, "5 s", took <= 5.0)]


def _polled(server: Server) -> tuple[float, float]:
    """Seconds from a boundary until everything is stored, of the first poll that is whole, and CPU seconds of it."""
    while True:
        _wait_for_silence(server)
        before = _stored(server)
        boundary = time.time() // POLL_SECONDS * POLL_SECONDS + POLL_SECONDS
        time.sleep(max(0.0, boundary - time.time()))
        cpu = server.cpu_seconds()
        while (stored := _stored(server) - before) < READERS * OF_EACH and time.time() < boundary + POLL_SECONDS - 1:
            time.sleep(0.5)  # to be told costs the server a few hundredths of a second
        if stored >= READERS * OF_EACH:
            return time.time() - boundary, server.cpu_seconds() - cpu


def _wait_for_silence(server: Server) -> None:
    """Until a poll that goes on is over."""
    before = -1.0
    while (now := _stored(server)) != before:
        before = now
        time.sleep(1.0)


def _stored(server: Server) -> float:
    found = re.search(
        r'^streamgauge_ingested_samples_total\{source="grpc_poll"\} (\S+)', server.get("/metrics").decode(), re.M
    )
    return float(found[1]) if found else 0.0


@contextlib.contextmanager
def _store() -> Iterator[tuple[Server, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running("streamgauge", ["--grpc-listen", address]) as server:
        yield server, address


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def _send(address: str, number: int) -> None:
    now = time.time_ns() // SECOND * SECOND
    labels = [{name: f"{name}-{at % 50}" for name in ("a", "b", "c", "d")} | {"n": str(at)} for at in range(SERIES)]
    begin = now - (4 - number) * (ROWS // SERIES) * SECOND

    def rows() -> Iterator[bytes]:
        for at in range(ROWS):
            yield encode_datum("rows", labels[at % SERIES], float(at), begin + at // SERIES * SECOND)

    with grpc.insecure_channel(address) as channel:
        channel.stream_unary(INSERT_ROWS)(rows(), wait_for_ready=True)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
