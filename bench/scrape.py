"""Scraping: samples for a second of CPU time, and what a thousand targets cost and how punctual they are."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from bench.peers import Server, available, running
from bench.report import Row

_VARIANTS = 8
_COUNTERS = {
    "streamgauge": 'streamgauge_ingested_samples_total{source="scrape"}',
    "prometheus": "prometheus_tsdb_head_samples_appended_total",
}


def body(series: int, chance: random.Random) -> bytes:
    """A scrape as exporters write it: families of 20 series of 4 labels; two of three values change each time."""
    lines = []
    for number in range(series):
        family = number // 20
        if number % 20 == 0:
            lines.append(f"# HELP app_metric_{family}_total Things that a family of metrics counts, in words.")
            lines.append(f"# TYPE app_metric_{family}_total counter")
        value = [str(number), repr(chance.random() * 1e6), str(chance.randrange(10**9))][number % 3]
        labels = f'handler="/api/v1/path/{number}",method="get",code="200",shard="{number % 7}"'
        lines.append(f"app_metric_{family}_total{{{labels}}} {value}")
    return ("\n".join(lines) + "\n").encode()


class _Target(asyncio.Protocol):
    """Answers every request with the next of some answers."""

    answers: tuple[bytes, ...] = ()
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            _Target.count += 1
            self._transport.write(self.answers[_Target.count % len(self.answers)])  # type: ignore[attr-defined]


def _serve(series: int, ready: Connection) -> None:
    chance = random.Random(1)
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n"
    bodies = [body(series, chance) for _ in range(_VARIANTS)]
    _Target.answers = tuple(head.format(len(one)).encode() + one for one in bodies)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Target, "127.0.0.1", 0, backlog=2048)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def _targets(series: int) -> Iterator[int]:
    """The port at which every path is a target of that many series."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(series, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()


def _config(port: int, targets: int, interval: int) -> str:
    """Every target is another path of the same server, so that each has its own labels and connection."""
    addresses = ", ".join(f"'p{number}'" for number in range(targets))
    return (
        f"global: {{scrape_interval: {interval}s, scrape_timeout: {interval}s}}\n"
        "scrape_configs:\n"
        "- job_name: bench\n"
        f"  static_configs: [{{targets: [{addresses}]}}]\n"
        "  relabel_configs:\n"
        "  - {source_labels: [__address__], target_label: instance}\n"
        "  - {source_labels: [__address__], regex: '(.*)', target_label: __metrics_path__, replacement: '/$1'}\n"
        f"  - {{target_label: __address__, replacement: '127.0.0.1:{port}'}}\n"
    )


@contextmanager
def _scraping(name: str, config: str) -> Iterator[Server]:
    if name == "prometheus":
        with running(name, config=config) as server:
            yield server
        return
    file = Path(f"/tmp/bench-scrape-{time.time_ns()}.yml")
    file.write_text(config)
    try:
        with running(name, ("--config", str(file))) as server:
            yield server
    finally:
        file.unlink()


def _stored(server: Server) -> float:
    lines = server.get("/metrics").decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(_COUNTERS[server.name]))


def throughput(targets: int = 20, series: int = 5000, seconds: float = 20.0) -> list[Row]:
    """Every target each second: samples stored for a second of CPU time of the server."""
    figures = {}
    with _targets(series) as port:
        for name in ("streamgauge", "prometheus"):
            if not available(name):
                continue
            with _scraping(name, _config(port, targets, 1)) as server:
                while _stored(server) < 3 * targets * series:  # every series is known by then
                    time.sleep(0.1)
                stored, cpu = _stored(server), server.cpu_seconds()
                time.sleep(seconds)
                stored, cpu = _stored(server) - stored, server.cpu_seconds() - cpu
                figures[name] = (stored / cpu / 1e6, server.version)
    ours = figures.pop("streamgauge")[0]
    best = max((rate for rate, _ in figures.values()), default=None)
    return [
        Row(
            f"scrape {targets} targets of {series} series, samples per CPU second",
            f"{ours:.2f} M",
            ", ".join(f"{name} {version}: {rate:.2f} M" for name, (rate, version) in figures.items()),
            None if best is None else ours / best,
            "1.2 M, and 3 x",
            ours >= 1.2 and (best is None or ours >= 3 * best),
        )
    ]


def fleet(targets: int = 1000, series: int = 500, interval: int = 15, seconds: float = 60.0) -> list[Row]:
    """Many targets: cores in use, and how far from their times scrapes begin."""
    figures = {}
    with _targets(series) as port:
        for name in ("streamgauge", "prometheus"):
            if not available(name):
                continue
            with _scraping(name, _config(port, targets, interval)) as server:
                while _stored(server) < 2 * targets * series:  # every series is known by then
                    time.sleep(1)
                time.sleep(interval)
                cpu, began = server.cpu_seconds(), time.time()
                time.sleep(seconds)
                cores = (server.cpu_seconds() - cpu) / (time.time() - began)
                late, scraped = _lateness(server, interval, seconds)
                figures[name] = (cores, late, scraped, server.version)
    cores, late, scraped, _ = figures.pop("streamgauge")
    return [
        Row(
            f"{targets} targets of {series} series each {interval} s: cores, latest scrape",
            f"{cores:.3f}, {late:.0f} ms ({scraped} scrapes)",
            ", ".join(f"{name} {v}: {c:.3f}, {ms:.0f} ms" for name, (c, ms, _, v) in figures.items()),
            min((cores / c for c, *_ in figures.values()), default=None),
            "0.25 cores, 200 ms",
            cores <= 0.25 and late <= 200,
        )
    ]


def _lateness(server: Server, interval: int, seconds: float) -> tuple[float, int]:
    """ms between a target's scrape that was the furthest off and its usual time; and how many scrapes there were."""
    parameters = {"query": f'up{{job="bench"}}[{round(seconds)}s]'}
    found = json.loads(server.get("/api/v1/query?" + urllib.parse.urlencode(parameters)))["data"]["result"]
    worst, scrapes = 0.0, 0
    for one in found:
        phases = sorted(round(stamp * 1000) % (interval * 1000) for stamp, _ in one["values"])
        scrapes += len(phases)
        worst = max(worst, phases[-1] - phases[0] if phases[-1] - phases[0] < interval * 500 else 0)
    return worst, scrapes


def run() -> list[Row]:
    return throughput() + fleet()
