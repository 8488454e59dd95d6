"""A command in a forked process is the command: what other tests see in one, they would see in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from streamgauge import __version__
from streamgauge.testing.forked import CAN_FORK, ForkedProcess, run_forked
from streamgauge.testing.server import SECONDS, ServerProcess, eventually

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="processes are forked on Linux only")

PLAIN = ("--no-self-monitoring",)


def test_a_command_has_its_arguments_folder_environment_and_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given.yml").write_text("global: {external_labels: {site: '${OF_THIS_TEST}'}}\n", encoding="utf-8")
    done = run_forked(["check-config", "given.yml"], {**os.environ, "OF_THIS_TEST": "here"}, "", SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    done = run_forked(["check-config", "given.yml"], dict(os.environ), "", SECONDS)
    assert done.returncode == 2
    assert "OF_THIS_TEST" in done.stderr
    assert done.stdout == ""
    assert run_forked(["--version"], {}, "", SECONDS).stdout == f"streamgauge {__version__}\n"


def test_its_end_is_told_however_it_comes(tmp_path: Path) -> None:
    process = ForkedProcess.piped(["serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path)], dict(os.environ))
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL
    process.kill()  # of which nobody hears
    assert process.stdout is not None
    process.stdout.close()


def test_a_forked_server_has_children_of_its_own_which_end_with_it(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path / "data", PLAIN) as server:
        assert server.query("1 + 1")[1] == "2"
        children = server.children()
        assert len(children) >= 3
        server.kill()
        eventually(lambda: not any(child.is_running() for child in children))


def test_a_forked_server_stops_without_a_complaint(tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path / "data", PLAIN) as server:
        assert server.stop() == 0
        assert server.output[-1].endswith("stopped; everything is on disk\n")
