"""Real servers, ours and our peers', each started on a free port with a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SNAPPY = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


@dataclass
class Server:
    """A running server. `base` has no trailing slash."""

    name: str
    version: str
    command: list[str]
    port: int
    data: Path
    process: subprocess.Popen[bytes]

    def connect(self, timeout: float = 300.0) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def get(self, path: str, parameters: dict[str, str] | None = None) -> bytes:
        connection = self.connect()
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        connection.request("GET", path + query)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{self.name} answered {response.status}: {body[:300]!r}")
        return body

    def processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Of the server and all its children, ended ones included."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        main = psutil.Process(self.process.pid).cpu_times()
        return total + main.children_user + main.children_system

    def memory(self) -> int:
        """Proportional set size of all processes, in bytes."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def stop(self, hard: bool = False) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def restart(self, environment: dict[str, str] | None = None) -> float:
        """Start the same command on the same folder again; seconds until it is ready."""
        began = time.perf_counter()
        self.process = _launch(self.command, self.data, environment)
        _await_ready(self)
        return time.perf_counter() - began


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _launch(command: Sequence[str], data: Path, environment: dict[str, str] | None) -> subprocess.Popen[bytes]:
    log = (data.parent / "server.log").open("ab")
    # As installed: pip writes bytecode. Where it may not be written, each start of each process compiles everything.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(command, stdout=log, stderr=log, env=own | (environment or {}), cwd=data.parent)


def _await_ready(server: Server) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            server.get("/-/ready" if server.name != "victoria-metrics" else "/health")
        except (OSError, RuntimeError, http.client.HTTPException):
            time.sleep(0.01)
        else:
            return
    log = (server.data.parent / "server.log").read_text(errors="replace")
    raise RuntimeError(f"{server.name} did not become ready:\n{log[-2000:]}")


def _version(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "?"
    match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return match.group() if match else "?"


def available(name: str) -> bool:
    return name == "streamgauge" or shutil.which(name) is not None


@contextlib.contextmanager
def running(
    name: str,
    flags: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    config: str = "scrape_configs: []\n",
) -> Iterator[Server]:
    """Start `streamgauge`, `prometheus` or `victoria-metrics`; everything of it is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    data = folder / "data"
    data.mkdir()
    port = free_port()
    address = f"127.0.0.1:{port}"
    if name == "streamgauge":
        command = [sys.executable, "-m", "streamgauge", "serve", "--listen", address, "--data", str(data)]
        command += ["--no-self-monitoring", "--retention", "0", *flags]
        version = _version([sys.executable, "-m", "streamgauge", "--version"])
    elif name == "prometheus":
        (folder / "prometheus.yml").write_text(config)
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={data}"]
        command += [f"--web.listen-address={address}", "--web.enable-remote-write-receiver", *flags]
        version = _version(["prometheus", "--version"])
    else:
        command = ["victoria-metrics", f"-storageDataPath={data}", f"-httpListenAddr={address}"]
        command += ["-retentionPeriod=100y", "-search.latencyOffset=0s", *flags]
        version = _version(["dpkg-query", "-W", "-f", "${Version}", "victoria-metrics"])
    server = Server(name, version, command, port, data, _launch(command, data, environment))
    try:
        _await_ready(server)
        yield server
    finally:
        server.stop(hard=True)
        shutil.rmtree(folder, ignore_errors=True)
