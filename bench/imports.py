"""Imports of files beside a running server: samples a second, memory, and what a live write feels of it.

STREAMGAUGE_BENCH_IMPORT is the number of samples of the JSON lines, 50 million unless it says otherwise.
The text, which is seven times as large for each sample, has a fifth of them; it comes in both orders.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from bench.load import Series, nine_labels
from bench.peers import SNAPPY, Server, available, running
from bench.report import Row

SAMPLES = int(os.environ.get("STREAMGAUGE_BENCH_IMPORT", "50000000"))
SERIES = 20_000
STEP_SECONDS = 15
LINE_SAMPLES = 1000
"""Of one JSON line."""
PROBE_SERIES = 100
PROBE_SECONDS = 0.05
MEMORY_AIM = 1 << 30


@dataclass
class Figures:
    """Of one import. memory: bytes, how much the server grew and what the command took, at their largest together."""

    rate: float
    cpu: float  # samples a CPU second, server and command together
    memory: int


@dataclass
class Probe:
    """Latencies of small live writes, in seconds."""

    seconds: list[float] = field(default_factory=list)

    def p99(self) -> float:
        return float(np.percentile(self.seconds, 99)) if self.seconds else float("nan")


def write_json_lines(path: Path, samples: int) -> int:
    """Series by series, LINE_SAMPLES a line, as VictoriaMetrics exports them; how many samples."""
    random = np.random.default_rng(1)
    each = max(samples // SERIES, 1)
    first = (int(time.time()) - each * STEP_SECONDS) * 1000
    with path.open("w") as file:
        for number in range(SERIES):
            metric = json.dumps(nine_labels(number), separators=(",", ":"))
            values = np.cumsum(random.integers(0, 200, each))
            for start in range(0, each, LINE_SAMPLES):
                part = values[start : start + LINE_SAMPLES]
                times = first + 1000 * STEP_SECONDS * (start + np.arange(len(part)))
                shown = (",".join(map(str, column.tolist())) for column in (part, times))
                file.write('{{"metric":{},"values":[{}],"timestamps":[{}]}}\n'.format(metric, *shown))
    return each * SERIES


def write_openmetrics(path: Path, samples: int) -> int:
    """Step by step, as a scraper would have seen them; how many samples."""
    random = np.random.default_rng(2)
    steps = max(samples // SERIES, 1)
    first = int(time.time()) - steps * STEP_SECONDS
    spelled = [_spelled(number) for number in range(SERIES)]
    values = random.integers(0, 1_000_000, SERIES)
    with path.open("w") as file:
        file.write("# TYPE m gauge\n")
        for step in range(steps):
            values += random.integers(0, 200, SERIES)
            at = first + step * STEP_SECONDS
            file.write("".join(f"{s} {v} {at}\n" for s, v in zip(spelled, values.tolist(), strict=True)))
        file.write("# EOF\n")
    return steps * SERIES


def write_series(path: Path, samples: int) -> int:
    """The same series by series, with milliseconds, as promtool dumps a database; how many samples."""
    random = np.random.default_rng(2)
    each = max(samples // SERIES, 1)
    first = int(time.time()) - each * STEP_SECONDS
    with path.open("w") as file:
        file.write("# TYPE m gauge\n")
        for number in range(SERIES):
            spelled = _spelled(number)
            values = np.cumsum(random.integers(0, 200, each)).tolist()
            file.write("".join(f"{spelled} {v} {first + n * STEP_SECONDS}.000\n" for n, v in enumerate(values)))
        file.write("# EOF\n")
    return each * SERIES


def _spelled(number: int) -> str:
    labels = nine_labels(number)
    inner = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return f"{labels['__name__']}{{{inner}}}"


def _import(server: Server, file: Path, samples: int) -> Figures:
    command = [
        sys.executable,
        "-m",
        "streamgauge",
        "import",
        "--restart",
        "--server",
        f"http://127.0.0.1:{server.port}",
    ]
    environment = {**os.environ, "XDG_STATE_HOME": str(file.parent)}
    before, cpu, began = server.memory(), server.cpu_seconds(), time.perf_counter()
    process = subprocess.Popen([*command, str(file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    own, peak, own_cpu = psutil.Process(process.pid), 0, 0.0
    while process.poll() is None:
        with suppress(psutil.Error):
            times = own.cpu_times()
            own_cpu = times.user + times.system
            peak = max(peak, own.memory_full_info().pss + server.memory() - before)
        time.sleep(0.1)
    took = time.perf_counter() - began
    out, errors = process.communicate()
    if process.returncode or f"{samples:,} samples" not in out.decode():
        raise RuntimeError(f"the import failed: {out.decode()} {errors.decode()}")
    return Figures(samples / took, samples / (server.cpu_seconds() - cpu + own_cpu), peak)


def _post(server: Server, file: Path, samples: int) -> Figures:
    """The same file to VictoriaMetrics, whose own way in this is."""
    before, cpu, began = server.memory(), server.cpu_seconds(), time.perf_counter()
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.1):
            peak = max(peak, server.memory() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    own = time.process_time()
    connection = server.connect(3600)
    with file.open("rb") as body:
        connection.request("POST", "/api/v1/import", body, {"content-length": str(file.stat().st_size)})
        answer = connection.getresponse()
        answer.read()
    took = time.perf_counter() - began
    used = server.cpu_seconds() - cpu + time.process_time() - own
    over.set()
    watching.join()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{server.name} answered {answer.status}")
    return Figures(samples / took, samples / used, peak)


def _create_blocks(file: Path, samples: int) -> Figures:
    """What promtool makes of the same text; it writes blocks and no server has them yet."""
    with tempfile.TemporaryDirectory(prefix="bench-blocks-", dir=file.parent) as folder:
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), folder]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        own, peak, cpu = psutil.Process(process.pid), 0, 0.0
        while process.poll() is None:
            with suppress(psutil.Error):
                times = own.cpu_times()
                cpu = times.user + times.system
                peak = max(peak, own.memory_full_info().pss)
            time.sleep(0.1)
        return Figures(samples / (time.perf_counter() - began), samples / max(cpu, 1e-3), peak)


@contextmanager
def _probing(server: Server) -> Iterator[Probe]:
    """Small live writes, one after the other with a pause."""
    probe, over = Probe(), threading.Event()
    series = Series(PROBE_SERIES, seed=3)

    def write() -> None:
        connection = server.connect()
        while not over.wait(PROBE_SECONDS):
            (body,) = series.step(np.full(PROBE_SERIES, time.time_ns() // 1_000_000))
            began = time.perf_counter()
            try:
                connection.request("POST", "/api/v1/write", body, SNAPPY)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return
            if answer.status >= 300:
                raise RuntimeError(f"a live write was answered {answer.status}")
            probe.seconds.append(time.perf_counter() - began)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield probe
    finally:
        over.set()
        thread.join()


def _measured(name: str, send: Callable[[Server, Path, int], Figures], file: Path, samples: int) -> tuple[Figures, str]:
    with running(name) as server:
        return send(server, file, samples), f"{name} {server.version}"


def _row(work: str, ours: Figures, peer: tuple[Figures, str] | None, aim: str, met: bool) -> Row:
    return Row(
        work,
        _shown(ours),
        "" if peer is None else f"{peer[1]}: {_shown(peer[0])}",
        None if peer is None else ours.rate / peer[0].rate,
        aim,
        met,
    )


def _shown(figures: Figures) -> str:
    return f"{figures.rate / 1e6:.2f} M/s, {figures.cpu / 1e6:.2f} M/CPU s, {figures.memory / 2**20:.0f} MiB"


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-import-") as folder:
        lines, text = Path(folder) / "lines.jsonl", Path(folder) / "text.om"
        count = write_json_lines(lines, SAMPLES)
        with running("streamgauge") as server:
            with _probing(server) as idle:
                time.sleep(5)
            ours = _import(server, lines, count)
        with running("streamgauge") as server, _probing(server) as beside:
            _import(server, lines, count)
        peer = _measured("victoria-metrics", _post, lines, count) if available("victoria-metrics") else None
        good = ours.rate >= 1e6 and ours.memory <= MEMORY_AIM
        rows = [
            _row(f"import {count} samples, JSON lines", ours, peer, "at least 1 M/s within 1024 MiB", good),
            Row(
                f"p99 of live writes of {PROBE_SERIES} samples beside it",
                f"{1000 * beside.p99():.0f} ms, alone {1000 * idle.p99():.0f} ms",
                "",
                None,
                "at most 100 ms",
                beside.p99() <= 0.1,
            ),
        ]
        lines.unlink()
        count = write_openmetrics(text, SAMPLES // 5)
        ours, _ = _measured("streamgauge", _import, text, count)
        made = (_create_blocks(text, count), "promtool, into blocks") if available("promtool") else None
        good = ours.rate >= 1e6 and ours.memory <= MEMORY_AIM
        rows.append(_row(f"import {count} samples, OpenMetrics", ours, made, "at least 1 M/s within 1024 MiB", good))
        count = write_series(text, SAMPLES // 5)
        ours, _ = _measured("streamgauge", _import, text, count)
        good = ours.rate >= 1e6 and ours.memory <= MEMORY_AIM
        work = f"import {count} samples, OpenMetrics, series by series"
        rows.append(_row(work, ours, None, "at least 1 M/s within 1024 MiB", good))
        return rows
