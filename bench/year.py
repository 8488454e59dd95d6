"""A year of an hour's aggregates: how long a query over all of it takes, after the server has made them itself."""

from __future__ import annotations

import json
import re
import statistics
import time

import numpy as np

from bench.load import Series, send
from bench.peers import Server, running
from bench.queries import compact
from bench.report import Row

SERIES = 1_000
HOUR_MS = 3_600_000
DAYS = 365
RETENTION_DAYS = 15
QUERY = "avg by (job)(m)"
REPEATS = 5


def run() -> list[Row]:
    """Hourly samples become aggregates over an hour: as many as of any other samples of a year."""
    now = int(time.time() * 1000) // HOUR_MS * HOUR_MS
    series = Series(SERIES)
    steps = DAYS * 24
    bodies = [b for step in range(steps) for b in series.step(np.full(SERIES, now - (steps - step) * HOUR_MS))]
    with running("streamgauge", ["--downsampling", "1h:2y"]) as server:
        send(server, bodies, connections=1)
        server.stop()
        compact(
            server
        )  # were the newest samples in no block, all blocks would be past retention: a clock not to believe
        at = server.command.index("--retention")
        server.command[at + 1] = f"{RETENTION_DAYS}d"
        began = time.perf_counter()
        server.restart()
        days = _thinned(server)
        took = time.perf_counter() - began
        blocks, size = (
            _numbers(server, "streamgauge_downsampled_blocks"),
            _numbers(server, "streamgauge_downsampled_bytes"),
        )
        milliseconds = _timed(server, now)
    each = size / (days * 24 * SERIES)
    return [
        Row(
            f"{QUERY}, {SERIES} series, a year of aggregates over 1 h ({blocks:.0f} blocks), a step of 1 h",
            f"{milliseconds:.0f} ms",
            "",
            None,
            "at most 1 s",
            milliseconds <= 1000,
        ),
        Row(
            f"downsampling {days:.0f} days of {SERIES} series with 24 samples a day",
            f"{took:.0f} s, {each:.1f} bytes an aggregate",
            "",
            None,
            "report",
            None,
        ),
    ]


def _numbers(server: Server, name: str) -> float:
    """The sum over all label values of a metric of the server's own."""
    text = server.get("/metrics").decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def _thinned(server: Server) -> float:
    """Wait until all days that are past retention are aggregates, in as few blocks as they come into. How many."""
    before: tuple[float, ...] = ()
    while True:
        now = tuple(
            _numbers(server, f"streamgauge_{name}") for name in ("downsampling_runs_total", "downsampled_blocks")
        )
        if now == before and now[0] >= DAYS - RETENTION_DAYS - 2:
            return now[0]
        before = now
        time.sleep(5)


def _timed(server: Server, now: int) -> float:
    """Median ms of the query over the year."""
    start = now - DAYS * 24 * HOUR_MS
    parameters = {"query": QUERY, "start": f"{start / 1000}", "end": f"{now / 1000}", "step": "3600"}
    took = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        answer = server.get("/api/v1/query_range", parameters)
        took.append((time.perf_counter() - began) * 1000)
    document = json.loads(answer)
    if len(document["data"]["result"]) != 7 or len(document["data"]["result"][0]["values"]) < (DAYS - 2) * 24:
        raise RuntimeError(f"the answer is not of 7 jobs over a year: {answer[:300]!r}")
    return statistics.median(took[1:])
