"""A disk that fills up under a real server, and has room again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import streamgauge
from streamgauge.store.verify import check_folder
from streamgauge.testing.requests import Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually

NOW = int(time.time()) * 1000
DISK = 24 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", tmp_path]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def fill(ballast: Path) -> None:
    """To the last byte."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def start(data: Path, kept_free: str, *more: str) -> ServerProcess:
    return ServerProcess.start(data, ("--no-self-monitoring", "--min-free-bytes", kept_free, *more))


def samples(number: int) -> list[Series]:
    return [Series({"__name__": "m", "n": str(at)}, [(NOW - 600_000 + number, 1.0)]) for at in range(1000)]


def stored(server: ServerProcess) -> float | None:
    return server.value("sum(count_over_time(m[1h]))", NOW / 1000)


@pytest.mark.parametrize("kept_free", ["0", "8M"])
def test_a_full_disk_refuses_writes_answers_queries_and_recovers_by_itself(small_disk: Path, kept_free: str) -> None:
    """With nothing kept free the disk itself refuses, in the middle of a record; else the server does, before that."""
    data, ballast = small_disk / "data", small_disk / "ballast"
    with start(data, kept_free) as server:
        number = 0
        assert server.write(samples(number)).status == 204
        ballast.write_bytes(bytes(DISK - (2 << 20)))
        while (answer := server.write(samples(number + 1))).status == 204:
            number += 1
        assert answer.status == 503
        assert "writes" in answer.text
        assert server.metric("streamgauge_read_only") == 1
        assert stored(server) == 1000 * (number + 1)
        assert server.write(samples(number + 1)).status == 503
        ballast.unlink()
        eventually(lambda: server.write(samples(number + 1)).status == 204)
        assert server.metric("streamgauge_read_only") == 0
        assert stored(server) == 1000 * (number + 2)
        server.process.terminate()
        assert server.wait() == 0
    assert check_folder(data) == []


def test_an_import_waits_until_the_disk_has_room(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    data, ballast = small_disk / "data", small_disk / "ballast"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = elsewhere / "file.om"
    file.write_text("".join(f'm{{n="{n}"}} 1 {NOW // 1000 - 60}\n' for n in range(1000)) + "# EOF\n")
    with start(data, "0") as server:
        fill(ballast)
        command = [sys.executable, "-m", "streamgauge", "import", "--server", server.url, str(file)]
        package = str(Path(streamgauge.__file__).parents[1])
        environment = {**os.environ, "XDG_STATE_HOME": str(elsewhere), "PYTHONPATH": package}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as importing:
            assert importing.stderr is not None
            assert any("waiting, and trying again" in line and "writes" in line for line in importing.stderr)
            ballast.unlink()
            out, err = importing.communicate(timeout=SECONDS)
        assert importing.returncode == 0, err
        assert "going on" in err
        assert "1,000 samples" in out
        assert stored(server) == 1000
        server.process.terminate()
        assert server.wait() == 0
    assert check_folder(data) == []


def test_a_server_starts_on_a_full_disk(small_disk: Path) -> None:
    data, ballast = small_disk / "data", small_disk / "ballast"
    with start(data, "0") as server:
        assert server.write(samples(0)).status == 204
        server.process.kill()
        server.wait()
    fill(ballast)
    with start(data, "0") as server:
        assert stored(server) == 1000
        number = 1  # what the log had written ahead is room for some
        while (answer := server.write(samples(number))).status == 204:
            number += 1
        assert answer.status == 503
        assert stored(server) == 1000 * number
        ballast.unlink()
        eventually(lambda: server.write(samples(number)).status == 204)
        assert stored(server) == 1000 * (number + 1)
        server.process.terminate()
        assert server.wait() == 0
    assert check_folder(data) == []


@pytest.mark.parametrize("kept_free", ["0", "8M"])
def test_a_full_disk_deletes_nothing_until_it_has_room(small_disk: Path, kept_free: str) -> None:
    data, ballast = small_disk / "data", small_disk / "ballast"
    everything = {"match[]": "m"}
    with start(data, kept_free, "--enable-admin-api") as server:
        assert server.write(samples(0)).status == 204
        fill(ballast)
        if kept_free != "0":
            eventually(lambda: server.metric("streamgauge_read_only") == 1)
        answer = server.post("/api/v1/admin/tsdb/delete_series", everything)
        assert answer.status == 503, answer.text
        assert stored(server) == 1000
        ballast.unlink()
        eventually(lambda: server.post("/api/v1/admin/tsdb/delete_series", everything).status == 204)
        assert stored(server) is None
        clean = "/api/v1/admin/tsdb/clean_tombstones"
        eventually(lambda: server.post(clean).status == 204 and server.metric("streamgauge_tombstones") == 0)
        server.process.terminate()
        assert server.wait() == 0
    assert check_folder(data) == []


@pytest.mark.parametrize("kept_free", ["0", "8M"])
def test_a_full_disk_keeps_every_event_that_was_counted_and_no_more(small_disk: Path, kept_free: str) -> None:
    data, ballast = small_disk / "data", small_disk / "ballast"
    line = b'{"text":"' + b"x" * 990 + b'"}\n'

    def counted() -> int:
        answer = server.request("POST", "/api/v1/sql", b"SELECT count(*) FROM events", {"content-type": "text/plain"})
        return int(answer.json()["data"]["rows"][0][0])

    with start(data, kept_free) as server:
        stored = int(server.request("POST", "/", line * 100).text)
        assert stored == 100
        ballast.write_bytes(bytes(DISK - (2 << 20)))
        with connect(server.url.replace("http", "ws"), proxy=None) as socket:
            socket.send("{}")
            assert socket.recv() == "1"
            while (answer := server.request("POST", "/", line * 100)).status == 200:
                stored += int(answer.text)
            stored += int(answer.text)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            latest = 1
            with pytest.raises(ConnectionClosed):
                for _ in range(10_000):
                    socket.send(line.decode())
                    latest = int(socket.recv())
            assert socket.close_code == 1013
        assert counted() == stored + latest
        ballast.unlink()
        eventually(lambda: server.request("POST", "/", b"{}").status == 200)
        server.process.terminate()
        assert server.wait() == 0
    assert check_folder(data) == []
