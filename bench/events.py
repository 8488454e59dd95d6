"""Events: what they cost on the way in, on the disk, and to ask for."""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import websockets
from websockets.asyncio.client import ClientConnection

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
        cpu, begun = server.cpu_seconds(), time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda part: _post(server, bodies[part::CONNECTIONS]), range(CONNECTIONS)))
        seconds, cpu = time.monotonic() - begun, server.cpu_seconds() - cpu
    alone = POSTED / cpu
    peer = _into_sqlite()
    return Row(
        f"POST of NDJSON, {len(bodies[0]) // REQUEST_EVENTS} bytes an event, {CONNECTIONS} connections, fsynced: "
        "events per CPU second (flushing and compaction included)",
        f"{alone / 1e3:.0f} k ({POSTED / seconds / 1e3:.0f} k a second)",
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
    messages = [line.decode() for line in log_events(10_000).to_pylist()]
    with running("streamgauge") as server:
        rate, lag = asyncio.run(_send(server.port, messages))
    late = float(np.percentile(lag, 99)) * 1000
    return Row(
        f"WebSocket, one connection, {len(messages[0])}-byte messages: messages a second; acknowledgement after, p99",
        f"{rate / 1e3:.0f} k; {late:.0f} ms",
        "",
        None,
        "60 k; 20 ms",
        rate >= 60_000 and late <= 20,
    )


async def _send(port: int, messages: list[str]) -> tuple[float, list[float]]:
    """Messages a second as fast as they go; then, at a tenth of it, seconds from a message to the acknowledgement that
    counts it."""
    async with websockets.connect(f"ws://127.0.0.1:{port}/", compression=None, max_size=None) as connection:
        begun = time.monotonic()
        reader = asyncio.create_task(_acknowledged(connection, MESSAGES))
        for number in range(MESSAGES):
            await connection.send(messages[number % len(messages)])
        await reader
        rate = MESSAGES / (time.monotonic() - begun)
        lag = []
        for number in range(2_000):
            sent = time.monotonic()
            await connection.send(messages[number])
            await _acknowledged(connection, MESSAGES + number + 1)
            lag.append(time.monotonic() - sent)
            await asyncio.sleep(0)
        return rate, lag


async def _acknowledged(connection: ClientConnection, count: int) -> None:
    while int(await connection.recv()) < count:
        pass


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
