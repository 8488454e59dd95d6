"""Remote write in, stored, and forwarded by remote write to another server: what forwarding costs beside storing."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from bench.load import Series, send
from bench.peers import Server, available, running
from bench.report import Row

SERIES = 20_000
STEPS = 60
SINK = "victoria-metrics"
_WAIT_SECONDS = 120


def run() -> list[Row]:
    if not available(SINK):
        return []
    series = Series(SERIES)
    figures = {name: _measure(name, series) for name in ("streamgauge", "prometheus") if available(name)}
    ours = figures["streamgauge"]
    peer = figures.get("prometheus")
    return [
        Row(
            f"remote write in and forwarded to {SINK}, {SERIES} series, {STEPS} steps",
            f"{ours[0] / 1e6:.2f} M samples/CPU s, all there after {ours[1]:.1f} s",
            f"{peer[2]}: {peer[0] / 1e6:.2f} M samples/CPU s, {peer[1]:.1f} s" if peer else "",
            ours[0] / peer[0] if peer else None,
            "",
            None,
        )
    ]


def _measure(name: str, series: Series) -> tuple[float, float, str]:
    """(samples per CPU second of the server in the middle, seconds until the last is there, its name)."""
    with running(SINK) as sink, tempfile.TemporaryDirectory() as folder:
        config = f"scrape_configs: []\nremote_write: [{{url: 'http://127.0.0.1:{sink.port}/api/v1/write'}}]\n"
        file = Path(folder) / "streamgauge.yml"
        file.write_text(config)
        flags = ["--config", str(file)] if name == "streamgauge" else []
        with running(name, flags, config=config) as server:
            first = int(time.time() * 1000) + 1000  # Prometheus forwards nothing that is older than itself
            steps = [series.step(np.full(SERIES, first + step * 1000)) for step in range(STEPS)]
            bodies = [body for step in steps for body in step]
            cpu, began = server.cpu_seconds(), time.perf_counter()
            send(server, bodies)
            samples = SERIES * STEPS
            while _stored(sink) < samples:
                if time.perf_counter() > began + _WAIT_SECONDS:
                    raise RuntimeError(f"{name} forwarded {_stored(sink):.0f} of {samples} samples")
                time.sleep(0.05)
            took = time.perf_counter() - began
            return samples / (server.cpu_seconds() - cpu), took, f"{name} {server.version}"


def _stored(sink: Server) -> float:
    lines = sink.get("/metrics").decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith('vm_rows_inserted_total{type="promremotewrite"')
    )
