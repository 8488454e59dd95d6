"""One series among 100,000; start-up; and small queries while writes come in."""

from __future__ import annotations

import math
import re
import statistics
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.load import Series, nine_labels, send
from bench.peers import Server, available, running
from bench.report import Row

STEP_MS = 15_000
LAG_BOUNDS_MS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 250.0, 1000.0, 5000.0, math.inf)


def one_among_many(count: int = 100_000) -> list[Row]:
    """An instant query of one series."""
    labels = nine_labels(count // 2)
    query = f'm{{pod="{labels["pod"]}"}}'
    now = int(time.time() * 1000) // STEP_MS * STEP_MS
    series = Series(count)
    bodies = [b for i in range(4) for b in series.step(np.full(count, now - (4 - i) * STEP_MS))]
    figures = {}
    for name in ("streamgauge", "victoria-metrics", "prometheus"):
        if not available(name):
            continue
        with running(name) as server:
            send(server, bodies)
            if name == "victoria-metrics":
                server.get("/internal/force_flush")
            took = _latencies(server, query, 200)
            figures[name] = (statistics.median(took), server.version)
    ours = figures.pop("streamgauge")[0]
    best = min((took for took, _ in figures.values()), default=None)
    return [
        Row(
            f"instant query of one series among {count}",
            f"{ours:.1f} ms",
            ", ".join(f"{name} {version}: {took:.1f} ms" for name, (took, version) in figures.items()),
            None if best is None else ours / best,
            "at most 10 ms",
            ours <= 10,
        )
    ]


def _latencies(server: Server, query: str, count: int) -> list[float]:
    """ms of each of `count` instant queries on one connection."""
    connection = server.connect()
    path = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
    took = []
    for _ in range(count):
        began = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        took.append((time.perf_counter() - began) * 1000)
        if response.status != 200 or b'"value"' not in body:
            raise RuntimeError(f"{server.name} answered {response.status}: {body[:200]!r}")
    connection.close()
    return took[5:]


def together(rate: int = 300_000, seconds: float = 20.0) -> list[Row]:
    """Small queries of four clients, five a second each, alone and beside `rate` samples a second."""
    count = 20_000
    series = Series(count)
    base = int(time.time() * 1000) // 1000 * 1000 - 60_000
    steps = [series.step(np.full(count, base + i * 1000)) for i in range(int(rate / count * seconds) + 20)]
    query = 'm{{code="200",pod="{}"}}'.format(nine_labels(10)["pod"])
    with running("streamgauge") as server:
        for step in steps[:10]:
            send(server, step)
        quiet = _asked(server, query, seconds / 2)
        before = _lag(server)
        stop = threading.Event()
        sent = [0]
        writer = threading.Thread(target=_write_at, args=(server, steps[10:], rate, stop, sent))
        writer.start()
        began = time.perf_counter()
        busy = _asked(server, query, seconds / 2)
        reached = sent[0] / (time.perf_counter() - began)
        lag = _lag(server) - before
        stop.set()
        writer.join()
    within, longest = lag[LAG_BOUNDS_MS.index(20)] / lag[-1], LAG_BOUNDS_MS[int(np.argmax(lag == lag[-1]))]
    calm, loaded = np.percentile(quiet, 99), np.percentile(busy, 99)
    return [
        Row(
            f"4 clients, 5 small queries a second each, beside {reached / 1e6:.2f} M samples/s: p99",
            f"{loaded:.1f} ms, quiet {calm:.1f} ms",
            "",
            float(loaded / calm),
            f"at most 5 x quiet, beside {rate / 1e6:.1f} M/s",
            bool(loaded <= 5 * calm and reached >= 0.95 * rate),
        ),
        Row(
            "the server's event loop meanwhile: how late it is for what is due",
            f"{within:.2%} within 20 ms, all within {longest:g} ms",
            "",
            None,
            "all within 20 ms",
            bool(longest <= 20),
        ),
    ]


def _lag(server: Server) -> npt.NDArray[np.int64]:
    """How often the event loop was late by at most each of LAG_BOUNDS_MS, since the start."""
    text = server.get("/metrics").decode()
    buckets = re.findall(r'streamgauge_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    counts = {float(bound) * 1000: float(count) for bound, count in buckets}
    return np.array([counts[bound] for bound in LAG_BOUNDS_MS]).astype(np.int64)


def _write_at(server: Server, steps: list[list[bytes]], rate: int, stop: threading.Event, sent: list[int]) -> None:
    began = time.perf_counter()
    for step in steps:
        if stop.is_set():
            return
        ahead = began + sent[0] / rate - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        send(server, step)
        sent[0] += 2000 * len(step)


def _asked(server: Server, query: str, seconds: float) -> list[float]:
    """ms of each query of four clients; raises when one of them was not answered with a value."""
    took: list[float] = []
    failures: list[bytes] = []

    def client() -> None:
        connection = server.connect()
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            connection.request("GET", path)
            body = connection.getresponse().read()
            if b'"value"' not in body:
                failures.append(body[:200])
            spent = time.perf_counter() - began
            took.append(spent * 1000)
            time.sleep(max(0.0, 0.2 - spent))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures or not took:
        raise RuntimeError(f"{server.name} answered {failures[:1]}")
    return took


def start_up(samples: int = 10_000_000) -> list[Row]:
    """Start to ready: an empty folder, and a log of ten million samples after kill -9."""
    with running("streamgauge") as server:
        server.stop()
        empty = server.restart()
    count = 20_000
    series = Series(count)
    now = int(time.time() * 1000) // STEP_MS * STEP_MS
    steps = samples // count
    with running("streamgauge") as server:
        server.stop()
        held = Path(server.data.parent / "held")
        held.touch()
        server.restart(
            {"STREAMGAUGE_FAILPOINTS": f"flush.before_blocks=hang:{held}", "STREAMGAUGE_HEAD_SAMPLES": "6000000"}
        )
        for step in range(steps):
            send(server, series.step(np.full(count, now - (steps - step) * STEP_MS)))
        server.stop(hard=True)
        full = server.restart()
    return [
        Row("start to ready, empty folder", f"{empty:.2f} s", "", None, "1.5 s", empty <= 1.5),
        Row(f"start to ready after kill -9, {samples} samples in the log", f"{full:.2f} s", "", None, "5 s", full <= 5),
    ]


def memory(count: int = 100_000, rounds: int = 40) -> list[Row]:
    """Proportional set size with 100,000 active series after rounds of 15 s samples, sent faster than real time."""
    series = Series(count)
    now = int(time.time() * 1000) // STEP_MS * STEP_MS
    bodies = [b for i in range(rounds) for b in series.step(np.full(count, now - (rounds - i) * STEP_MS))]
    figures = {}
    for name in ("streamgauge", "victoria-metrics", "prometheus"):
        if not available(name):
            continue
        with running(name) as server:
            send(server, bodies)
            _latencies(server, 'm{{pod="{}"}}'.format(nine_labels(10)["pod"]), 20)
            time.sleep(5)
            figures[name] = (server.memory(), server.version)
    ours = figures.pop("streamgauge")[0]
    rows = []
    for name, (size, version) in figures.items():
        ratio = ours / size
        aim = "at most 3 x" if name == "victoria-metrics" else "report"
        rows.append(
            Row(
                f"memory of all processes, {count} series, {rounds} rounds",
                f"{ours / 1e6:.0f} MB",
                f"{name} {version}: {size / 1e6:.0f} MB",
                ratio,
                aim,
                ratio <= 3 if name == "victoria-metrics" else None,
            )
        )
    return rows
