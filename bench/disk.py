"""Bytes a sample on recorded scrapes, after everything is compacted."""

from __future__ import annotations

import json
import os
import re
import struct
import time
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa

from bench.load import frame_series, label_section, send, snappy, varint
from bench.peers import Server, available, running
from bench.queries import compact
from bench.report import Row

_SHARED = os.environ.get("STREAMGAUGE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
RECORDED = Path(_SHARED) / "data" / "scrapes.ndjson.zst"
SNAP_MS = 2
"""A scraper gives samples the scheduled time when it is this close, as Prometheus does."""

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")

Scrape = tuple[float, str, str]


def _recorded() -> Iterator[Scrape]:
    with pa.input_stream(str(RECORDED), compression="zstd") as stream:
        for line in stream.read().splitlines():
            scrape = json.loads(line)
            yield scrape["time"], scrape["target"], scrape["body"]


def _record(seconds: int = 120) -> Iterator[Scrape]:
    """Scrapes of our own making, where none are recorded: both servers' own metrics, once a second."""
    with running("streamgauge", ["--self-monitoring"]) as ours, running("prometheus") as peer:
        for _ in range(seconds):
            moment = time.time()
            for server in (ours, peer):
                with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
                    yield moment, f"127.0.0.1:{server.port}", answer.read().decode()
            time.sleep(max(0.0, moment + 1 - time.time()))


@cache
def _section(target: str, series: str) -> bytes:
    """The labels of a series, given as it stands in a scrape: name{label="value",…}."""
    name, _, rest = series.partition("{")
    labels = {label: _ESCAPE.sub(_unescaped, value) for label, value in _LABEL.findall(rest)}
    return label_section({**labels, "__name__": name.strip(), "instance": target, "job": "recorded"})


def _unescaped(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]


def _samples(body: str) -> Iterator[tuple[str, float]]:
    """Series and value of each line of a scrape in the text format; timestamps are not looked at."""
    for line in body.split("\n"):
        if line and line[0] != "#":
            end = line.rfind("}") + 1 or line.index(" ")
            yield line[:end], float(line[end:].split(None, 1)[0])


def _requests(scrapes: Iterator[Scrape]) -> tuple[list[bytes], int]:
    """Remote-write bodies and the number of samples in them."""
    bodies = []
    samples = 0
    schedule: dict[str, int] = {}
    for moment, target, body in scrapes:
        taken = round(moment * 1000)
        planned = schedule.get(target, taken) + 1000
        at = planned if abs(planned - taken) <= SNAP_MS else taken
        schedule[target] = at
        parts = []
        time_field = varint(at)
        for series, value in _samples(body):
            parts.append(frame_series(_section(target, series), struct.pack("<d", value), time_field))
        samples += len(parts)
        bodies.append(snappy(b"".join(parts)))
    return bodies, samples


def _size(server: Server) -> int:
    folders = ("data", "indexdb") if server.name == "victoria-metrics" else (".",)
    return sum(p.stat().st_size for f in folders for p in (server.data / f).rglob("*") if p.is_file())


def run() -> list[Row]:
    recorded = RECORDED.exists()
    bodies, samples = _requests(_recorded() if recorded else _record())
    with running("streamgauge") as server:
        send(server, bodies, connections=1)
        server.stop()
        compact(server)
        ours = _size(server) / samples
    peer = None
    note = ""
    if available("victoria-metrics"):
        with running("victoria-metrics") as server:
            send(server, bodies, connections=1)
            server.get("/internal/force_flush")
            server.get("/internal/force_merge")
            time.sleep(5)
            server.stop()
            peer = _size(server) / samples
            note = f"victoria-metrics {server.version}: {peer:.2f} bytes"
    ratio = None if peer is None else ours / peer
    return [
        Row(
            f"{'recorded' if recorded else 'own'} scrapes, {samples} samples, compacted: bytes a sample",
            f"{ours:.2f} bytes",
            note,
            ratio,
            "at most 0.65 x",
            None if ratio is None else ratio <= 0.65,
        )
    ]
