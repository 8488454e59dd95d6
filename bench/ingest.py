"""Remote write with durable acknowledgements: samples per CPU second."""

from __future__ import annotations

import time

import numpy as np

from bench.load import Series, send
from bench.peers import Server, available, running
from bench.report import Row

SERIES = 20_000
STEPS = 150
WARM_STEPS = 5


def _measure(server: Server, bodies: list[bytes], warm: list[bytes]) -> tuple[float, float]:
    """(samples per CPU second, samples per second)."""
    send(server, warm)
    cpu, began = server.cpu_seconds(), time.perf_counter()
    send(server, bodies)
    took = time.perf_counter() - began
    samples = len(bodies) * 2000
    return samples / (server.cpu_seconds() - cpu), samples / took


def run() -> list[Row]:
    series = Series(SERIES)
    now = int(time.time() * 1000) // 15_000 * 15_000
    first = now - (STEPS + WARM_STEPS) * 15_000
    steps = [series.step(np.full(SERIES, first + step * 15_000)) for step in range(STEPS + WARM_STEPS)]
    warm = [body for step in steps[:WARM_STEPS] for body in step]
    bodies = [body for step in steps[WARM_STEPS:] for body in step]
    figures: dict[str, tuple[float, float]] = {}
    names: dict[str, str] = {}
    for name in ("streamgauge", "victoria-metrics", "prometheus"):
        if not available(name):
            continue
        with running(name) as server:
            figures[name] = _measure(server, bodies, warm)
            names[name] = f"{name} {server.version}"
    ours = figures.pop("streamgauge")
    rows = []
    for name, factor in (("victoria-metrics", 1.2), ("prometheus", 5.0)):
        if name in figures:
            ratio = ours[0] / figures[name][0]
            rows.append(
                Row(
                    f"remote write, {SERIES} series of 9 labels, {STEPS} steps, 2000 a request",
                    f"{ours[0] / 1e6:.2f} M/CPU s, {ours[1] / 1e6:.2f} M/s",
                    f"{names[name]}: {figures[name][0] / 1e6:.2f} M/CPU s, {figures[name][1] / 1e6:.2f} M/s",
                    ratio,
                    f"at least {factor} x",
                    ratio >= factor,
                )
            )
    return rows
