"""Pushes of clusters: a fleet of them, and how much one of them can upload."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from bench.load import frame_series, label_section, send, snappy, varint
from bench.peers import Server, available, free_port, running
from bench.report import Row
from streamgauge.wire import snappy_frames

CLUSTERS = 1000
SERIES = 500
EVERY = 30.0  # seconds between two pushes of a cluster
ROUNDS = 3
PUSHES = 1000  # of the single client
THREADS = 8
TOKEN = "a token for the benchmark"
CONFIG = f"""
federation:
  whitelist: '{{}}'
  ratelimit: 0s
  receive-ratelimit: 0s
  push-tokens: [{{name: bench, sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}}}]
"""
_KIND = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_METRICS = 20  # of a family
_VALUE_AND_TIME = 15


class Cluster:
    """Uploads of one cluster: 500 counters in 25 families, whose bytes are put together once."""

    def __init__(self, name: str, seed: int = 1) -> None:
        self.name = name
        self._random = np.random.default_rng(seed)
        body, ends = bytearray(), []
        for number in range(SERIES // _METRICS):
            family = b"\x0a" + _sized(f"requests_of_kind_{number}_total".encode()) + b"\x18\x00"
            offsets = []
            for instance in range(_METRICS):
                metric = self._labels(instance) + b"\x1a\x09\x09" + bytes(8) + b"\x30" + bytes(6)
                family += b"\x22" + _sized(metric)
                offsets.append(len(family))
            body += varint(len(family))
            ends += [len(body) + offset for offset in offsets]
            body += family
        self._body = np.frombuffer(bytes(body), np.uint8).copy()
        self._ends = np.array(ends)

    def _labels(self, instance: int) -> bytes:
        pairs = {"_id": self.name, "instance": f"10.0.7.{instance}:9100", "job": "node", "pod": f"exporter-{instance}"}
        return b"".join(
            b"\x0a" + _sized(b"\x0a" + _sized(name.encode()) + b"\x12" + _sized(value.encode()))
            for name, value in pairs.items()
        )

    def upload(self, now: int) -> bytes:
        values = self._random.integers(0, 10**6, SERIES).astype(np.float64)
        stamp = np.frombuffer(varint(now), np.uint8)
        where = self._ends[:, None] - _VALUE_AND_TIME + np.arange(8)
        self._body[where] = values.view(np.uint8).reshape(SERIES, 8)
        self._body[self._ends[:, None] - 6 + np.arange(6)] = stamp
        return snappy_frames.encode(self._body.tobytes())

    def write(self, now: int) -> bytes:
        """As many series as a remote write."""
        parts = []
        for number in range(SERIES):
            labels = {"__name__": f"written_{number // _METRICS}_total", "_id": self.name, "job": "node"}
            section = label_section({**labels, "instance": f"10.0.7.{number % _METRICS}:9100"})
            parts.append(frame_series(section, self._random.random(1).tobytes(), varint(now)))
        return snappy(b"".join(parts))


def _sized(content: bytes) -> bytes:
    return varint(len(content)) + content


@contextmanager
def federation() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "streamgauge.yml"
        file.write_text(CONFIG)
        with running("streamgauge", ["--config", str(file)]) as server:
            yield server


def headers(server: Server, cluster: str) -> dict[str, str]:
    connection = server.connect()
    connection.request("POST", f"/authorize?id={cluster}", headers={"Authorization": f"Bearer {TOKEN}"})
    token = json.loads(connection.getresponse().read())["token"]
    connection.close()
    return {"Authorization": f"Bearer {token}", "Content-Type": _KIND, "Content-Encoding": "snappy"}


@contextmanager
def original() -> Iterator[Server]:
    """A telemeter-server, which forwards to a server of ours, and the authority that it asks."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "tokens.json").write_text(json.dumps([{"token": TOKEN}]))
        store = stack.enter_context(running("streamgauge"))
        authority, port = free_port(), free_port()
        stack.enter_context(_started(["authorization-server", f"127.0.0.1:{authority}", str(folder / "tokens.json")]))
        command = ["telemeter-server", "--listen", f"127.0.0.1:{port}", "--listen-internal", "127.0.0.1:0"]
        command += ["--authorize", f"http://127.0.0.1:{authority}", "--ratelimit", "1ns"]
        command += ["--forward-url", f"http://127.0.0.1:{store.port}/api/v1/write", "--whitelist", '{_id="one"}']
        process = stack.enter_context(_started(command))
        server = Server(command[0], "", command, port, folder, process)
        while True:
            with suppress(OSError):
                server.connect().close()
                break
            time.sleep(0.05)
        yield server


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def fleet() -> Row:
    """A thousand clusters, spread over the interval; how long a push takes from its first byte to its answer."""
    with federation() as server:
        clusters = [Cluster(f"cluster-{number}", number) for number in range(CLUSTERS)]
        tokens = [headers(server, cluster.name) for cluster in clusters]
        took: list[float] = []
        failures: list[str] = []
        memory: list[int] = []
        began = time.perf_counter() + 1

        def work(thread: int) -> None:
            connection = server.connect()
            for turn in range(ROUNDS):
                for number in range(thread, CLUSTERS, THREADS):
                    due = began + (turn + number / CLUSTERS) * EVERY
                    body = clusters[number].upload(int(time.time() * 1000))
                    time.sleep(max(0.0, due - time.perf_counter()))
                    start = time.perf_counter()
                    failure = _post(connection, "/upload", body, tokens[number])
                    took.append(time.perf_counter() - start)
                    if failure:
                        failures.append(failure)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for turn in range(ROUNDS):
            time.sleep(max(0.0, began + (turn + 1) * EVERY - time.perf_counter()))
            memory.append(server.memory())
        for thread in threads:
            thread.join()
    slow = float(np.percentile(took, 99)) * 1000
    growth = (memory[-1] - memory[0]) / 2**20
    return Row(
        f"{CLUSTERS} clusters push {SERIES} series every {EVERY:.0f} s, {ROUNDS} times",
        f"p50 {np.percentile(took, 50) * 1000:.1f} ms, p99 {slow:.1f} ms, {len(failures)} errors, "
        f"{memory[-1] / 2**20:.0f} MiB ({growth:+.0f} since the first round)",
        "",
        None,
        "p99 below 100 ms, no error",
        slow < 100 and not failures,
    )


def single() -> list[Row]:
    """How much of a CPU second the samples of one client cost, by three ways in."""
    cluster = Cluster("one")
    with federation() as server:
        upload = headers(server, "one")
        text = json.dumps({"authorization_token": TOKEN, "cluster_id": "one"}).encode()
        receive = {"Authorization": f"Bearer {base64.b64encode(text).decode()}", "Content-Encoding": "snappy"}
        now = int(time.time() * 1000) - PUSHES * 100
        uploads = [cluster.upload(now + number * 100) for number in range(PUSHES)]
        writes = [cluster.write(now + number * 100) for number in range(PUSHES)]
        uploaded = _rate(server, "/upload", uploads, upload)
        received = _rate(server, "/metrics/v1/receive", writes, receive)
        send(server, writes[:10], 1)
        cpu = server.cpu_seconds()
        send(server, writes[10:], 1)
        written = (PUSHES - 10) * SERIES / (server.cpu_seconds() - cpu)
    theirs: float | None = None
    if available("telemeter-server") and available("authorization-server"):
        with original() as server:
            theirs = _rate(server, "/upload", uploads, headers(server, "one"))
    return [
        Row(
            f"uploads of one client, {SERIES} series each",
            f"{uploaded / 1e6:.2f} M samples/CPU s",
            f"telemeter-server, which stores nothing itself: {theirs / 1e6:.2f} M samples/CPU s" if theirs else "",
            uploaded / theirs if theirs else None,
            "at least 0.4 M",
            uploaded >= 400_000,
        ),
        Row(
            f"remote writes of a cluster, {SERIES} series each",
            f"{received / 1e6:.2f} M samples/CPU s",
            f"/api/v1/write: {written / 1e6:.2f} M samples/CPU s",
            received / written,
            "at least 0.9 x",
            received >= 0.9 * written,
        ),
    ]


def _rate(server: Server, path: str, bodies: Sequence[bytes], headers: dict[str, str]) -> float:
    """Samples per CPU second of the whole server."""
    connection = server.connect()
    for number, body in enumerate(bodies):
        if number == 10:
            cpu = server.cpu_seconds()
        if failure := _post(connection, path, body, headers):
            raise RuntimeError(failure)
    time.sleep(1)  # what is done behind the answers
    return (len(bodies) - 10) * SERIES / (server.cpu_seconds() - cpu)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> str:
    """What went wrong; "" for nothing."""
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return repr(error)
    return "" if answer.status == 200 else f"{answer.status}: {text[:200]!r}"


def run() -> list[Row]:
    return [*single(), fleet()]
