"""Live tails: how long after a write's acknowledgement its events are with those who follow."""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import statistics
import threading
import time
from contextlib import closing

from bench.peers import running
from bench.report import Row

TAILS = 100
WRITES = 400
WRITE_SECONDS = 0.025
"""Between two writes, of ten events each."""
_EVENTS = 10
_REQUEST = b"GET /api/v1/tail?filter=n%3E%3D0 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run() -> list[Row]:
    return [followed()]


def followed() -> Row:
    with running("streamgauge") as server:
        readers = [_reader(server.port) for _ in range(TAILS)]
        written: dict[int, float] = {}
        lags: list[float] = []
        writing = threading.Thread(target=_write, args=(server.port, written))
        writing.start()
        seen = _read(readers)
        writing.join()
        for number, times in seen.items():
            lags += (each - written[number] for each in times)
        for reader in readers:
            reader.close()
    assert len(lags) == TAILS * WRITES, f"{len(lags)} of {TAILS * WRITES} arrived"
    lags.sort()
    p99 = max(lags[int(0.99 * len(lags))], 0.0)
    return Row(
        f"tail: {TAILS} followers over HTTP, filtering by a field, {_EVENTS / WRITE_SECONDS:.0f} events a second: from "
        "a write's acknowledgement to the reader, p99",
        f"{p99 * 1e3:.1f} ms (median {statistics.median(lags) * 1e3:.1f})",
        "–",
        None,
        "50 ms",
        p99 <= 0.05,
    )


def _reader(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(_REQUEST)
    head = b""
    while b"\n\n" not in head.partition(b"\r\n\r\n")[2]:  # where it stands: it follows
        head += sock.recv(4096)
    sock.setblocking(False)
    return sock


def _write(port: int, written: dict[int, float]) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for number in range(WRITES):
            events = [{"n": number, "last": place == _EVENTS - 1, "text": "x" * 150} for place in range(_EVENTS)]
            connection.request("POST", "/", "\n".join(map(json.dumps, events)))
            assert connection.getresponse().read() == b"%d" % _EVENTS
            written[number] = time.monotonic()
            time.sleep(WRITE_SECONDS)


def _read(readers: list[socket.socket]) -> dict[int, list[float]]:
    """When each tail had the last event of each write."""
    seen: dict[int, list[float]] = {number: [] for number in range(WRITES)}
    rest = dict.fromkeys(readers, b"")
    left = dict.fromkeys(readers, WRITES)
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ)
        while any(left.values()):
            ready = selector.select(30)
            assert ready, "nothing comes any more"
            for key, _ in ready:
                reader = key.fileobj
                assert isinstance(reader, socket.socket)
                piece = reader.recv(1 << 16)
                now = time.monotonic()
                assert piece, "a tail has ended"
                *lines, rest[reader] = (rest[reader] + piece).split(b"\n\n")
                for line in lines:
                    if b'"last": true' in line:
                        number = int(line.partition(b'"n": ')[2].partition(b",")[0])
                        seen[number].append(now)
                        left[reader] -= 1
    return seen
