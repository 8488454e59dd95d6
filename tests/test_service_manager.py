"""What systemd is told, on real sockets, by the real server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamgauge
from streamgauge.clock import ManualClock
from streamgauge.service_manager import ServiceManager

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no systemd")

FOREVER = 60.0


class Manager:
    """The socket on which a service manager listens."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(FOREVER)
        self._socket.bind(address)

    def told(self) -> dict[str, str]:
        """The fields of the next message."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.close()


def test_a_status_is_one_field(manager: Manager, address: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": address}, ManualClock()).ready("listening\nMAINPID=1")
    assert manager.told() == {"READY": "1", "STATUS": "listening MAINPID=1"}


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux'")
def test_an_abstract_socket(tmp_path: Path) -> None:
    manager = Manager(f"\0{tmp_path}")
    ServiceManager({"NOTIFY_SOCKET": f"@{tmp_path}"}, ManualClock()).stopping("soon")
    assert manager.told() == {"STOPPING": "1", "STATUS": "soon"}
    manager.close()


def test_a_reload_during_the_start_does_not_pass_for_its_end(manager: Manager, address: str) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": address}, ManualClock())
    service.reloading()
    service.reloaded("done")
    service.ready("listening")
    assert manager.told()["STATUS"] == "listening"


def test_nobody_there_is_no_reason_to_fail(address: str, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({}, ManualClock()).ready("alone")
    assert caplog.messages == []
    ServiceManager({"NOTIFY_SOCKET": address}, ManualClock()).ready("ignored")
    (line,) = caplog.messages
    assert address in line
    assert "READY=1" in line


def test_a_server_tells_when_it_is_ready_reloads_and_stops(manager: Manager, address: str, tmp_path: Path) -> None:
    """Its log goes where systemd said that the journal is, without a time and with priorities."""
    config = tmp_path / "streamgauge.yml"
    config.write_text("streamgauge:\n  retention: 1d\n", encoding="utf-8")
    with (tmp_path / "journal").open("w+", encoding="utf-8") as journal:
        status = os.fstat(journal.fileno())
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "streamgauge", "serve", "--data", str(tmp_path / "data")),
                *("--listen", "127.0.0.1:0", "--no-self-monitoring", "--config", str(config)),
            ],
            stdout=journal,
            stderr=journal,
            env=os.environ
            | {
                "PYTHONPATH": str(Path(streamgauge.__file__).parents[1]),
                "NOTIFY_SOCKET": address,
                "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
            },
        )
        try:
            ready = manager.told()
            assert ready["READY"] == "1"
            assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+", ready["STATUS"])

            server.send_signal(signal.SIGHUP)
            reloading = manager.told()
            assert reloading["RELOADING"] == "1"
            assert int(reloading["MONOTONIC_USEC"]) > 0
            assert manager.told() == {"READY": "1", "STATUS": "the configuration was reloaded"}

            config.write_text("streamgauge:\n  retenton: 1d\n", encoding="utf-8")
            server.send_signal(signal.SIGHUP)
            assert manager.told()["RELOADING"] == "1"
            refused = manager.told()
            assert refused["READY"] == "1"
            assert "not reloaded" in refused["STATUS"]
            assert "retention" in refused["STATUS"]

            server.send_signal(signal.SIGTERM)
            assert manager.told()["STOPPING"] == "1"
            assert server.wait(FOREVER) == 0
        finally:
            server.kill()
            server.wait()
        journal.seek(0)
        lines = journal.read().splitlines()
    assert [line for line in lines if not re.match(r"<[3-6]>[\w.]+: ", line)] == []
    assert any(line.startswith("<6>listeners: listening url=http://127.0.0.1:") for line in lines)
    assert any(line.startswith("<3>services: the configuration was not reloaded") for line in lines)
