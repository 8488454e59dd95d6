"""`streamgauge tail` beside a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from streamgauge.testing.requests import Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually, launch_command, run_command

StartServer = Callable[..., ServerProcess]


def post(server: ServerProcess, *events: object) -> None:
    answer = server.request("POST", "/", "\n".join(map(json.dumps, events)).encode())
    assert (answer.status, answer.text) == (200, str(len(events)))


class Tail:
    """`streamgauge tail` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.said: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        for stream, into in ((process.stdout, self.lines), (process.stderr, self.said)):
            threading.Thread(target=lambda stream=stream, into=into: into.extend(stream), daemon=True).start()


@contextmanager
def tailing(server: ServerProcess, *arguments: str) -> Iterator[Tail]:
    before = server.metric("streamgauge_tails")
    with launch_command(["tail", "--server", server.url, *arguments], {}) as process:
        try:
            eventually(lambda: server.metric("streamgauge_tails") > before)
            yield Tail(process)
        finally:
            process.kill()


def test_events_are_shown_as_lines(start_server: StartServer) -> None:
    server = start_server()
    with tailing(server, "level=ERROR") as tail:
        post(server, {"level": "INFO", "n": 1}, {"level": "ERROR", "message": "no room", "n": 2})
        eventually(lambda: tail.lines)
        assert [line[24:] for line in tail.lines] == ["ERROR no room n=2\n"]
        tail.process.send_signal(signal.SIGINT)
        assert tail.process.wait(SECONDS) == 130
    assert "Traceback" not in "".join(tail.said)


def test_history_as_json_ends_by_itself(start_server: StartServer) -> None:
    server = start_server()
    post(server, *({"n": n} for n in range(5)))
    done = run_command("tail", "--server", server.url, "--since", "1h", "--json", "--limit", "3")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["payload"]["n"] for line in done.stdout.splitlines()] == [0, 1, 2]


def test_samples_are_shown(start_server: StartServer) -> None:
    server = start_server()
    with tailing(server, "--kind", "samples", '{job="a"}') as tail:
        time = 1_764_181_464_123
        server.write([Series({"__name__": "up", "job": job}, [(time, 1.5)]) for job in "ab"])
        eventually(lambda: tail.lines)
        assert tail.lines == ['2025-11-26 18:24:24.123 up{job="a"} 1.5\n']


def test_a_server_that_comes_back_is_followed_on(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(data=tmp_path / "data")
    with tailing(server, "--json") as tail:
        post(server, {"n": 1})
        eventually(lambda: tail.lines)
        server.kill()
        eventually(lambda: tail.said)
        again = start_server("--listen", f"127.0.0.1:{server.port}", data=tmp_path / "data")
        post(again, {"n": 2})
        post(again, {"n": 3})
        eventually(lambda: len(tail.lines) == 3)
        assert [json.loads(line)["payload"]["n"] for line in tail.lines] == [1, 2, 3]
        assert "asked again" in tail.said[0]


def test_a_server_that_is_asked_to_stop_ends_its_tails(start_server: StartServer) -> None:
    server = start_server()
    with tailing(server) as tail:
        assert server.stop() == 0
        eventually(lambda: tail.said)
        assert "the server ended the connection" in tail.said[0]


@pytest.mark.parametrize(
    ("word", "reason"), [("message~(", "invalid regular expression"), ("a..b=1", "is no condition")]
)
def test_a_bad_filter_is_a_wrong_usage(server: ServerProcess, word: str, reason: str) -> None:
    done = run_command("tail", "--server", server.url, word)
    assert (done.returncode, reason in done.stderr) == (2, True)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo terminals")
def test_space_pauses_in_a_terminal(start_server: StartServer) -> None:
    server = start_server()
    ours, theirs = os.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while piece := os.read(ours, 4096):
                seen.extend(piece)
        except OSError:  # the other end is closed
            pass

    with ExitStack() as stack:
        command = [sys.executable, "-m", "streamgauge", "tail", "--server", server.url]
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("NO_COLOR", None)
        process = stack.enter_context(
            subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        )
        stack.callback(process.kill)
        os.close(theirs)
        threading.Thread(target=read, daemon=True).start()
        eventually(lambda: server.metric("streamgauge_tails") == 1)
        post(server, {"level": "ERROR", "n": 1})
        eventually(lambda: b"\x1b[31mERROR" in seen)
        os.write(ours, b" ")
        eventually(lambda: b"paused" in seen)
        post(server, {"n": "second"})
        eventually(lambda: server.metric("streamgauge_tail_sent_total") == 2)
        post(server, {"n": "third"})
        assert b"second" not in seen
        os.write(ours, b" ")
        eventually(lambda: b"third" in seen)
        assert seen.index(b"second") < seen.index(b"third")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
