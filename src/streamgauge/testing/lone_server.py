"""A real server in a process of its own, and a client that speaks remote write to it."""

from __future__ import annotations

import http.client
import json
import os
import struct
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pyarrow as pa

import streamgauge
from streamgauge.store import failpoints

PATIENCE_SECONDS = 30.0
"""How long anything may take before a test gives it up."""

Samples = Sequence[tuple[Mapping[str, str], Sequence[tuple[int, float]]]]
"""Labels, and times in ms with their values."""


@dataclass
class ServerProcess:
    """`python -m streamgauge serve` on a free port. Use it in a `with`, which ends it if it still runs."""

    data: Path
    flags: Sequence[str] = ()
    failpoints: str = ""
    lines: list[str] = field(default_factory=list)  # what it has printed so far

    def __enter__(self) -> ServerProcess:
        command = [sys.executable, "-m", "streamgauge", "serve", "--data", str(self.data), "--listen", "127.0.0.1:0"]
        environment = {**os.environ, "PYTHONPATH": str(Path(streamgauge.__file__).parents[1])}
        self._new_line = threading.Condition()
        self.process = subprocess.Popen(
            [*command, "--no-self-monitoring", *self.flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment, "PYTHONUNBUFFERED": "1", failpoints.VARIABLE: self.failpoints},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._new_line:
                self.lines.append(line.rstrip("\n"))
                self._new_line.notify_all()
        with self._new_line:
            self.lines.append("")  # it has ended
            self._new_line.notify_all()

    def printed(self, text: str) -> str:
        """Wait for a line that has `text` in it, and return it."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._new_line:
            self._new_line.wait_for(lambda: found() is not None or "" in self.lines, PATIENCE_SECONDS)
            line = found()
        if line is None:
            raise AssertionError(f"the server has not said {text!r}:\n" + "\n".join(self.lines))
        return line

    def ready(self) -> ServerProcess:
        self.printed(": ready; ")
        return self

    @property
    def address(self) -> str:
        return urllib.parse.urlsplit(self.printed("http://").split()[-1]).netloc

    def children(self) -> list[psutil.Process]:
        """Its workers, helpers and the like."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return [child for child in self.children() if "spawn_main" in " ".join(child.cmdline())]

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    # ---- a client ---------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def write(self, samples: Samples) -> tuple[int, str]:
        """One remote-write request; status and text of the answer."""
        status, text = self.request(
            "POST",
            "/api/v1/write",
            write_request(samples),
            content_type="application/x-protobuf",
            content_encoding="snappy",
        )
        return status, text.decode()

    def query(self, expression: str, time: float) -> tuple[int, dict[str, Any]]:
        """An instant query; status and the JSON of the answer. `time` in seconds."""
        parameters = urllib.parse.urlencode({"query": expression, "time": f"{time:.3f}"})
        status, body = self.request("GET", f"/api/v1/query?{parameters}")
        return status, json.loads(body)

    def value(self, expression: str, time: float) -> float | None:
        """The one value of an instant query; None where there is none."""
        status, answer = self.query(expression, time)
        assert status == 200, answer
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def metric(self, name: str) -> float:
        """One of its own metrics."""
        _, body = self.request("GET", "/metrics")
        return next(float(line.split()[1]) for line in body.decode().splitlines() if line.startswith(f"{name} "))


def eventually(condition: Callable[[], bool]) -> None:
    """Ask again until it holds, for what another process does in its own time."""
    pause = threading.Event()
    for _ in range(round(PATIENCE_SECONDS / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it has not happened")


def write_request(samples: Samples) -> bytes:
    """The body of a remote-write 1.0 request."""
    body = b"".join(_field(1, _series(labels, points)) for labels, points in samples)
    packed: bytes = pa.Codec("snappy").compress(body, asbytes=True)
    return packed


def _series(labels: Mapping[str, str], points: Iterable[tuple[int, float]]) -> bytes:
    described = b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(labels.items()))
    return described + b"".join(
        _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(time)) for time, value in points
    )


def _field(tag: int, body: bytes) -> bytes:
    return bytes([tag << 3 | 2]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
