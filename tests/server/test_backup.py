"""Backups beside a running server, which goes on, and what is left when one of the two goes away."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest

from streamgauge.backup.folder import FolderPlace
from streamgauge.backup.place import backups
from streamgauge.store import failpoints
from streamgauge.store.lock import holder
from streamgauge.store.verify import check_folder
from streamgauge.testing.requests import Series
from streamgauge.testing.server import ServerProcess, eventually, launch_command, run_command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")

NOW = int(time.time())


def write(server: ServerProcess, number: int) -> None:
    rows = [Series({"__name__": "m", "n": str(at)}, [(NOW * 1000 + number, float(at))]) for at in range(100)]
    assert server.write(rows).status == 204


def back_up(dest: Path, server: ServerProcess) -> None:
    done = run_command("backup", str(dest), "--data", str(server.data), "--copy")
    assert done.returncode == 0, done.stderr


def samples_in(dest: Path, target: Path) -> int:
    done = run_command("restore", str(dest), str(target))
    assert done.returncode == 0, done.stderr
    assert check_folder(target) == []
    with ServerProcess.start(target, ("--no-self-monitoring", "--retention", "0")) as restored:
        return int(restored.value("sum(count_over_time(m[1h]))", NOW + 10) or 0)


class Held:
    """A backup in a process of its own that waits after its second file."""

    def __init__(self, dest: Path, server: ServerProcess, gate: Path) -> None:
        gate.touch()
        self.dest = dest
        self._gate = gate
        self.process = launch_command(
            ["backup", str(dest), "--data", str(server.data), "--copy"],
            {failpoints.VARIABLE: f"backup.after_file=hang:{gate}@2+"},
        )

    def __enter__(self) -> Held:
        def waits() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return len([path for path in self.dest.glob("blocks/*/*") if path.suffix != ".tmp"]) >= 2

        eventually(waits)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """At once, and again if it has ended."""
        self.process.kill()
        self.process.communicate()

    def go_on(self) -> tuple[int, str]:
        """Its exit code, and what it complained about."""
        self._gate.unlink()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def test_everything_acknowledged_before_is_in_it(start_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = start_server()
    write(server, 0)
    back_up(tmp_path / "dest", server)
    write(server, 1)
    assert server.value("sum(count_over_time(m[1h]))", NOW + 10) == 200
    assert server.metric("streamgauge_pins") == 0
    assert server.metric("streamgauge_pins_taken_total") == 1
    assert samples_in(tmp_path / "dest", tmp_path / "first") == 100
    back_up(tmp_path / "dest", server)
    assert samples_in(tmp_path / "dest", tmp_path / "second") == 200


def test_the_key_is_in_the_lock_and_for_nobody_else(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server()
    lock = server.data / "lock"
    held = holder(server.data)
    assert held is not None
    assert len(held.key) == 32
    assert held.key in lock.read_text()
    assert held.key not in repr(held)
    assert lock.stat().st_mode & 0o007 == 0, "others cannot read it"
    assert server.request("POST", "/api/v1/admin/pins").status == 403
    text = "".join(server.output) + server.get("/api/v1/status/flags").text + server.get("/metrics").text
    assert held.key not in text


def test_a_server_that_is_killed_costs_no_backup_while_its_files_stay(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_server()
    write(server, 0)
    with Held(tmp_path / "dest", server, tmp_path / "gate") as backup:
        server.kill()
        assert backup.go_on() == (0, "")
    assert samples_in(tmp_path / "dest", tmp_path / "back") == 100


def test_a_block_that_a_killed_server_no_longer_keeps_is_told(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_server()
    for number in range(3):
        rows = [Series({"__name__": "d"}, [((NOW - number * 86_400) * 1000, 1.0)])]
        assert server.write(rows).status == 204
    with Held(tmp_path / "dest", server, tmp_path / "gate") as backup:
        server.kill()
        for file in server.data.glob("blocks/*/*"):  # as the next server's retention would
            file.unlink()
        code, errors = backup.go_on()
    assert code == 3
    (line,) = errors.splitlines()
    assert "is missing: the server at" in line
    assert "has stopped" in line
    assert backups(FolderPlace(tmp_path / "dest")) == []


def test_a_backup_that_is_killed_keeps_blocks_for_a_minute_and_no_backup(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_server()
    write(server, 0)
    with Held(tmp_path / "dest", server, tmp_path / "gate") as backup:
        assert server.metric("streamgauge_pins") == 1
        backup.kill()
    assert backups(FolderPlace(tmp_path / "dest")) == []
    back_up(tmp_path / "dest", server)
    assert samples_in(tmp_path / "dest", tmp_path / "back") == 100
