"""`sum by (code)(rate(m[5m]))` over an hour of 20,000 series, with one, 200 and 20,000 distinct time vectors.

All servers get the same requests. Ours holds all of it in the head at first (which by default would have flushed the
oldest samples: hence --head-samples) and then in compacted blocks; each peer is measured once, freshly written.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.load import Series, send
from bench.peers import Server, available, running
from bench.report import Row

SERIES = 20_000
STEP_MS = 15_000
POINTS = 241
QUERY = "sum by (code)(rate(m[5m]))"
REPEATS = 7
AIMS = {"head": {1: 0.5, 200: 0.8, 20_000: 1.2}, "blocks": {1: 0.8, 200: 1.2, 20_000: 1.2}}
PEER_FLAGS = {"victoria-metrics": ["-search.disableCache"], "prometheus": []}


def _jitter(vectors: int) -> npt.NDArray[np.int64]:
    """For each series, ms after the grid: `vectors` different ones, in groups of neighbours."""
    spread = np.linspace(0, STEP_MS - 1, vectors).astype(np.int64)
    return np.repeat(spread, SERIES // vectors)


def _timed(server: Server, end: int) -> tuple[float, dict[str, float]]:
    """(median ms, last value by code) of the query over the hour before `end` (ms)."""
    parameters = {"query": QUERY, "start": f"{(end - 3_600_000) / 1000}", "end": f"{end / 1000}", "step": "15"}
    took = []
    answer = b""
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        answer = server.get("/api/v1/query_range", parameters)
        took.append((time.perf_counter() - began) * 1000)
    result = json.loads(answer)["data"]["result"]
    return statistics.median(took[1:]), {s["metric"]["code"]: float(s["values"][-2][1]) for s in result}


def _agree(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Same codes, and rates within 5 %: VictoriaMetrics' rate does not extrapolate."""
    return ours.keys() == theirs.keys() and all(abs(ours[code] - theirs[code]) < 0.05 * theirs[code] for code in ours)


def run(shapes: Sequence[int] = (1, 200, 20_000)) -> list[Row]:
    rows = []
    for vectors in shapes:
        jitter = _jitter(vectors)
        end = int(time.time() * 1000) // STEP_MS * STEP_MS - 60_000
        series = Series(SERIES)
        bodies = [b for i in range(POINTS) for b in series.step(end - (POINTS - 1 - i) * STEP_MS - STEP_MS + jitter)]
        peers: dict[str, tuple[float, dict[str, float]]] = {}
        for name, flags in PEER_FLAGS.items():
            if available(name):
                with running(name, flags) as server:
                    send(server, bodies)
                    if name == "victoria-metrics":
                        server.get("/internal/force_flush")
                    peers[f"{name} {server.version}"] = _timed(server, end)
        with running("streamgauge", ["--head-samples", "8000000"]) as server:
            send(server, bodies)
            rows.append(_row("head", vectors, _timed(server, end), peers))
            server.stop()
            compact(server)
            server.restart()
            rows.append(_row("blocks", vectors, _timed(server, end), peers))
    return rows


def compact(server: Server) -> None:
    """`streamgauge compact` on a stopped server's folder."""
    import subprocess
    import sys

    subprocess.run(
        [sys.executable, "-m", "streamgauge", "compact", str(server.data)], check=True, stdout=subprocess.DEVNULL
    )


def _row(
    where: str, vectors: int, ours: tuple[float, dict[str, float]], peers: dict[str, tuple[float, dict[str, float]]]
) -> Row:
    aim = AIMS[where][vectors]
    best = min((took for took, _ in peers.values()), default=None)
    ratio = None if best is None else ours[0] / best
    wrong = [name for name, (_, values) in peers.items() if not _agree(ours[1], values)]
    note = f" (answers differ from {', '.join(wrong)})" if wrong else ""
    return Row(
        f"{QUERY}, {SERIES} series, 1 h at 15 s, {vectors} time vectors, from {where}",
        f"{ours[0]:.0f} ms{note}",
        ", ".join(f"{name}: {took:.0f} ms" for name, (took, _) in peers.items()),
        ratio,
        f"at most {aim} x",
        None if ratio is None else ratio <= aim,
    )
