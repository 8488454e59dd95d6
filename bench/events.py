"""Events: what they cost on the way in, on the disk, and to ask for."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from bench.events_data import log_events
from bench.peers import Server, running
from bench.report import Row

POSTED = 1_000_000
CONNECTIONS = 4
REQUEST_EVENTS = 10_000
SQLITE_EVENTS = 100_000
MESSAGES = 300_000
STORED = 500_000


def run() -> list[Row]:
    return [posted(), over_websocket(), *stored()]


def _bodies(count: int) -> list[bytes]:
    """NDJSON bodies of REQUEST_EVENTS events each, of about 200 bytes."""
    lines = log_events(REQUEST_EVENTS).to_pylist()
    body = b"\n".join(lines) + b"\n"
    return [body] * (count // REQUEST_EVENTS)


def posted() -> Row:
    bodies = _bodies(POSTED)
    with running("streamgauge") as server:
        process = psutil.Process(server.process.pid)
        cpu, own, begun = server.cpu_seconds(), process.cpu_times(), time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda part: _post(server, bodies[part::CONNECTIONS]), range(CONNECTIONS)))
        seconds, cpu, after = time.monotonic() - begun, server.cpu_seconds() - cpu, process.cpu_times()
    alone = POSTED / (after.user + after.system - own.user - own.system)
    peer = _into_sqlite()
    return Row(
        f"POST of NDJSON, {len(bodies[0]) // REQUEST_EVENTS} bytes an event, {CONNECTIONS} connections, fsynced: "
        "events per CPU second of the server's process",
        f"{alone / 1e3:.0f} k (with the writing of blocks beside it {POSTED / cpu / 1e3:.0f} k; "
        f"{POSTED / seconds / 1e3:.0f} k a second)",
        f"SQLite {sqlite3.sqlite_version}, one insert and commit each, synced: {peer / 1e3:.1f} k a second",
        alone / peer,
        "250 k; 10 x",
        alone >= 250_000 and alone >= 10 * peer,
    )


def _post(server: Server, bodies: list[bytes]) -> None:
    connection = server.connect()
    for body in bodies:
        connection.request("POST", "/", body, {"Content-Type": "application/jsonl"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK or int(text) != REQUEST_EVENTS:
            raise RuntimeError(f"answered {answer.status}: {text[:200]!r}")
    connection.close()


def _into_sqlite() -> float:
    """Events a second when each is inserted and committed, as servers do that keep a database."""
    lines = log_events(2_000).to_pylist()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        database = sqlite3.connect(f"{folder}/events.db", isolation_level=None)
        database.execute("CREATE TABLE events (insert_datetime TEXT, payload BLOB, stream_id INTEGER)")
        begun = time.monotonic()
        for line in lines:
            database.execute("INSERT INTO events VALUES (datetime('now'), ?, 1)", (line.decode(),))
        seconds = time.monotonic() - begun
        database.close()
    return len(lines) / seconds


def over_websocket() -> Row:
    messages = [line for line in log_events(10_000).to_pylist() if len(line) > 125]
    with running("streamgauge") as server:
        rate, lag = _send(server.port, messages)
    late = float(np.percentile(lag, 99)) * 1000
    return Row(
        f"WebSocket, one connection, {len(messages[0])}-byte messages: messages a second; acknowledgement after, p99",
        f"{rate / 1e3:.0f} k; {late:.0f} ms",
        "",
        None,
        "60 k; 20 ms",
        rate >= 60_000 and late <= 20,
    )


class _Socket:
    """One WebSocket connection, its frames made in advance: what is measured is the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3RyZWFtZ2F1Z2UtYmVuY2g=\r\n\r\n".encode()
        )
        self._read = b""
        while b"\r\n\r\n" not in self._read:
            self._read += self.socket.recv(65536)
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(head.decode())

    def acknowledged(self, count: int) -> None:
        """Wait until so many messages are on disk."""
        while True:
            while len(self._read) >= 2 and len(self._read) >= 2 + self._read[1]:
                text, self._read = self._read[2 : 2 + self._read[1]], self._read[2 + self._read[1] :]
                if int(text) >= count:
                    return
            self._read += self.socket.recv(65536)


def _frame(message: bytes) -> bytes:
    """A text message of 126 to 65,535 bytes, masked with zeros."""
    return b"\x81\xfe" + len(message).to_bytes(2, "big") + bytes(4) + message


def _send(port: int, messages: list[bytes]) -> tuple[float, list[float]]:
    """Messages a second as fast as they go; then, one after the other, seconds until each is acknowledged."""
    frames = [_frame(message) for message in messages]
    piece = b"".join(frames[:1000])
    connection = _Socket(port)
    begun = time.monotonic()
    sender = threading.Thread(target=lambda: [connection.socket.sendall(piece) for _ in range(MESSAGES // 1000)])
    sender.start()
    connection.acknowledged(MESSAGES)
    rate = MESSAGES / (time.monotonic() - begun)
    sender.join()
    lag = []
    for number, frame in enumerate(frames[:2_000], 1):
        sent = time.monotonic()
        connection.socket.sendall(frame)
        connection.acknowledged(MESSAGES + number)
        lag.append(time.monotonic() - sent)
    connection.socket.close()
    return rate, lag


_STORE = """
import asyncio, json, sys, time
from pathlib import Path
import pyarrow as pa
from bench.events_data import log_events
from streamgauge.clock import SystemClock
from streamgauge.store.events.blocks import LocalEventBlocks
from streamgauge.store.events.merge import merge_blocks
from streamgauge.store.helper import InThread
from streamgauge.store.lock import acquire
from streamgauge.store.opening import Progress, open_store
from streamgauge.store.store import StoreSettings

async def main(folder, count):
    runner = InThread()
    settings = StoreSettings(retention=0, event_retention=0, min_free_bytes=0)
    with acquire(folder):
        async with open_store(folder, settings, SystemClock(), runner, runner, Progress()) as (store, maintenance):
            stream = store.events.open_stream("http", "{}")
            texts = log_events(count).cast(pa.binary())
            for start in range(0, count, 65536):
                await store.events.append_events(stream, start + 1, texts.slice(start, 65536))
                await maintenance.events.flush(everything=True)
            begun = time.process_time()
            await maintenance.events.compact_fully()
            seconds = time.process_time() - begun
            size = sum(meta.bytes for meta in store.events.state.blocks)
            print(json.dumps({"seconds": seconds, "bytes": size, "blocks": len(store.events.state.blocks)}))

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def stored() -> list[Row]:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        data = Path(folder) / "data"
        made = subprocess.run([sys.executable, "-c", _STORE, str(data), str(STORED)], capture_output=True, check=True)
        figures = json.loads(made.stdout)
        each = figures["bytes"] / STORED
        raw = sum(map(len, log_events(10_000).to_pylist())) / 10_000
        with running("streamgauge", ["--data", str(data.absolute())]) as server:
            count = _ask(server, "SELECT count(*) FROM events WHERE payload.level = 'ERROR'")
            group = _ask(server, "SELECT payload.http.status, count(*) FROM events GROUP BY 1")
    return [
        Row(
            f"{STORED} events of {raw:.0f} bytes, after compaction: bytes each",
            f"{each:.1f} (merged at {STORED / figures['seconds'] / 1e3:.0f} k a CPU second)",
            "",
            None,
            "at most 35",
            each <= 35,
        ),
        Row("count of level = 'ERROR' in them, over HTTP", f"{count * 1000:.0f} ms", "", None, "25 ms", count <= 0.025),
        Row("group by http.status in them, over HTTP", f"{group * 1000:.0f} ms", "", None, "0.1 s", group <= 0.1),
    ]


def _ask(server: Server, query: str) -> float:
    """Seconds: the median of some, after a first that opens files."""
    seconds = []
    connection = server.connect()
    for _ in range(12):
        begun = time.monotonic()
        connection.request("POST", "/api/v1/sql", query, {"Content-Type": "application/sql"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"answered {answer.status}: {body[:200]!r}")
        seconds.append(time.monotonic() - begun)
    return float(np.median(seconds[2:]))
