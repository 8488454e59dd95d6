"""Thousands of relays on one server: what they cost, and how soon their answers are on disk."""

from __future__ import annotations

import re
import selectors
import socket
import tempfile
import time
from pathlib import Path

import psutil

from bench.peers import Server, running
from bench.report import Row

RELAYS = 5_000
STATS = 20
POLL_SECONDS = 10
WARM_SECONDS, SECONDS = 60, 40  # thousands that connect at once are first asked at once


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = Path(folder) / "relays.yml"
        config.write_text(
            f"relay: {{server-listen-address: '127.0.0.1:{port}', poll-interval: {POLL_SECONDS}, beat-interval: 30}}\n"
        )
        with running("streamgauge", ["--config", str(config)]) as server:
            return [_measured(server, port)]


def _measured(server: Server, port: int) -> Row:
    selector = selectors.DefaultSelector()
    for number in range(RELAYS):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(b"id relay%d\nadd host:dc:a\n" % number)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    items = [f"host-stat_{number}:{number}." for number in range(STATS)]
    _answer(selector, items, WARM_SECONDS)
    process = psutil.Process(server.process.pid)
    before, stored, buckets = process.cpu_times(), _stored(server), _buckets(server)
    begun = time.monotonic()
    _answer(selector, items, SECONDS)
    took = time.monotonic() - begun
    after = process.cpu_times()
    cores = (after.user + after.system - before.user - before.system) / took
    rate = (_stored(server) - stored) / took
    late = {bound: count - buckets.get(bound, 0) for bound, count in _buckets(server).items()}
    p99 = next(bound for bound, count in sorted(late.items()) if count >= 0.99 * late[float("inf")])
    for key in list(selector.get_map().values()):
        socket.socket.close(key.fileobj)  # type: ignore[arg-type]
    return Row(
        f"{RELAYS} relays of {STATS} stats, each polled every {POLL_SECONDS} s: cores, p99 until an answer is stored",
        f"{cores:.2f} cores at {rate:.0f} samples/s, p99 below {p99 * 1000:.0f} ms",
        "–",
        None,
        "half a core, 1 s",
        cores < 0.5 and p99 <= 1.0 and rate > 0.95 * RELAYS * STATS / POLL_SECONDS,
    )


def _answer(selector: selectors.BaseSelector, items: list[str], seconds: float) -> None:
    """Be all relays for so long."""
    end = time.monotonic() + seconds
    count = 0
    while (left := end - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            lines = sock.recv(4096)
            if b"get " in lines:
                count += 1
                sock.sendall(f"got {','.join(f'{item}{count % 10_000:04d}' for item in items)}\nping\n".encode())


def _stored(server: Server) -> float:
    text = server.get("/metrics").decode()
    found = re.search(r'^streamgauge_ingested_samples_total\{source="relay"\} (\S+)', text, re.M)
    return float(found[1]) if found else 0.0


def _buckets(server: Server) -> dict[float, float]:
    text = server.get("/metrics").decode()
    found = re.findall(r'^streamgauge_relay_answer_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.M)
    return {float(bound): float(count) for bound, count in found}
