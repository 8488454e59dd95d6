"""The real server in a process of its own, and the plainest client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

import streamgauge
from streamgauge.testing import requests
from streamgauge.testing.forked import CAN_FORK, ForkedProcess, run_forked

SECONDS = 60.0
"""Within which a start, a stop or an answer is awaited: far more than any takes, so that only a hang is an error."""

Parameters = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def run_command(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `streamgauge` with these arguments, and variables beside those there are, until it ends."""
    if CAN_FORK:
        return run_forked(arguments, _environment(environment), "", SECONDS)
    command = [sys.executable, "-m", "streamgauge", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=_environment(environment)
    )


def launch_command(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start `streamgauge` with these arguments and variables; its output can be read from it."""
    command = [sys.executable, "-m", "streamgauge", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=_environment(environment))


def _environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """In which a child finds the package that this process runs, installed or not."""
    source = str(Path(streamgauge.__file__).parents[1])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def _started(
    command: Sequence[str], environment: Mapping[str, str], forked: bool
) -> subprocess.Popen[str] | ForkedProcess:
    """A process with all of its output in one pipe."""
    if forked:
        return ForkedProcess.piped(command, environment)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def eventually(condition: Callable[[], object]) -> None:
    """Ask again until it holds, for what another process does in its own time."""
    pause, deadline = threading.Event(), time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        pause.wait(0.05)


class ServerProcess:
    """A server with the Prometheus HTTP API in a process of its own, on a free loopback port.

    Made by `start` or `start_prometheus`; stop it, or use it in a `with`. What it prints is kept in `output`, a line an
    entry.
    """

    def __init__(
        self, command: Sequence[str], data: Path, environment: Mapping[str, str] | None = None, forked: bool = False
    ) -> None:
        """forked: `command` is arguments of `streamgauge`, for a process that is forked."""
        self.data = data
        self.port = 0
        self.output: list[str] = []
        self._ended = False  # its output
        self._printed = threading.Condition()
        self.process = _started(command, _environment(environment), forked)
        self._reader = threading.Thread(target=self._read, name="server-output", daemon=True)
        self._reader.start()

    @classmethod
    def start(
        cls,
        data: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        module: str = "streamgauge",
        fresh: bool = False,
    ) -> ServerProcess:
        """`streamgauge serve`, ready. Raises RuntimeError, with what it printed, when it ends before that. module: what
        is run as the command line. fresh: it and its workers have interpreters of their own, as for users, where a test
        looks at processes."""
        return cls.launch(data, arguments, environment, module, fresh)._until_ready("http://", "ready; ")

    @classmethod
    def launch(
        cls,
        data: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        module: str = "streamgauge",
        fresh: bool = False,
    ) -> ServerProcess:
        """`streamgauge serve`, which may yet refuse to start."""
        command = ["serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        command += ["--grpc-listen", "off", *arguments]  # one that is wanted is named
        fresh = fresh or any(name.startswith("PYTHON") for name in environment or {})  # an interpreter's settings
        if CAN_FORK and module == "streamgauge" and not fresh:
            return cls(command, data, environment, forked=True)
        return cls([sys.executable, "-m", module, *command], data, environment)

    @classmethod
    def start_prometheus(cls, folder: Path, config: str, arguments: Sequence[str] = ()) -> ServerProcess:
        """`prometheus`, ready, with its data and configuration in `folder`. Raises RuntimeError."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "prometheus.yml"
        file.write_text(config)
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        command += ["--web.listen-address=127.0.0.1:0", *arguments]
        return cls(command, folder / "data")._until_ready("Listening on", "Server is ready")

    def _until_ready(self, listening: str, ready: str) -> ServerProcess:
        try:
            found = re.search(r"\d+\.\d+\.\d+\.\d+:(\d+)", self.await_line(listening))
            assert found is not None
            self.port = int(found[1])
            self.await_line(ready)
        except BaseException:
            self.kill()
            raise
        return self

    def await_line(self, text: str, after: int = 0) -> str:
        """The first printed line, from number `after` on, that holds `text`, as soon as there is one."""
        with self._printed:
            found = self._printed.wait_for(lambda: self._line(text, after) is not None or self._ended, SECONDS)
            line = self._line(text, after)
        if not found or line is None:
            raise RuntimeError(f"the server did not print {text!r}:\n" + "".join(self.output))
        return line

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code, once the process has ended."""
        code = self.process.wait(seconds)
        self._reader.join(SECONDS)
        return code

    def stop(self) -> int:
        """Ask it to stop, as a service manager does; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def children(self) -> list[psutil.Process]:
        """Its workers, helpers and the like."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """Those of its children that run queries or write blocks."""
        return [child for child in self.children() if "spawn_main" in " ".join(child.cmdline())]

    # ---- as a client ----

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> Response:
        """One request on a connection of its own. Raises TimeoutError when nothing comes for `seconds`."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def get(
        self,
        path: str,
        parameters: Parameters | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> Response:
        query = "?" + urllib.parse.urlencode(parameters, doseq=True) if parameters else ""
        return self.request("GET", path + query, headers=headers, seconds=seconds)

    def post(self, path: str, form: Parameters | None = None) -> Response:
        body = urllib.parse.urlencode(form or {}, doseq=True).encode()
        return self.request("POST", path, body, {"content-type": "application/x-www-form-urlencoded"})

    def data_of(self, path: str, parameters: Parameters | None = None) -> Any:
        """The `data` of a successful answer of the API. Parameters go as a form where there are some."""
        answer = self.post(path, parameters) if parameters else self.get(path)
        if answer.status != 200:
            raise AssertionError(f"{path} {parameters} was answered {answer.status}: {answer.text[:500]}")
        return answer.json()["data"]

    def query(self, expression: str, time: float | None = None) -> list[Any]:
        """The result of an instant query."""
        parameters = {"query": expression} | ({} if time is None else {"time": f"{time:.3f}"})
        result: list[Any] = self.data_of("/api/v1/query", parameters)["result"]
        return result

    def value(self, expression: str, time: float) -> float | None:
        """The one value of an instant query; None where there is none."""
        result = self.query(expression, time)
        return float(result[0]["value"][1]) if result else None

    def samples(self, selector: str, end: float, seconds: int = 86_400) -> list[tuple[int, str]]:
        """All stored samples of the one series that `selector` means, in `seconds` until `end`: ms and text."""
        result = self.query(f"{selector}[{seconds}s]", end)
        if not result:
            return []
        (series,) = result
        return [(round(time * 1000), value) for time, value in series["values"]]

    def metric(self, name: str) -> float:
        """One of the server's own metrics; `name` as it stands there, with labels if it has some."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    def metric_sum(self, name: str) -> float:
        """The sum of one of the server's own metrics over all of its labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def write(self, series: Iterable[requests.Series], message: str = requests.V1) -> Response:
        """One remote-write request."""
        encode = requests.v1 if message == requests.V1 else requests.v2
        return self.send(requests.snappy(encode(series)), message)

    def send(self, body: bytes, message: str = requests.V1) -> Response:
        """One remote-write request with any body."""
        return self.request("POST", "/api/v1/write", body, requests.headers(message))

    # ---- output ----

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._printed:
                    self.output.append(line)
                    self._printed.notify_all()
        with self._printed:
            self._ended = True
            self._printed.notify_all()

    def _line(self, text: str, after: int) -> str | None:
        return next((line for line in self.output[after:] if text in line), None)
