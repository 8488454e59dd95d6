"""Commands in processes that are forked from one that has imported everything: see fork_server.py."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import context
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import streamgauge
from streamgauge.testing.fork_server import LARGEST, WORD, WORKERS_IMPORT

CAN_FORK = sys.platform == "linux" and sys.version_info < (3, 14)
"""Where there is such a process."""


class ForkedProcess:
    """A process that runs `streamgauge` with some arguments. Used like one of subprocess; wait for its end."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], *streams: int) -> None:
        """streams: the descriptors of its standard input, output and error, which stay open here."""
        order = {"arguments": list(arguments), "environment": dict(environment), "folder": os.getcwd()}
        self.args = ["streamgauge", *arguments]
        self.stdout: IO[str] | None = None
        self.returncode: int | None = None
        self._status, theirs = os.pipe()
        weakref.finalize(self, os.close, self._status)  # not before: threads may wait for it
        self._lock = threading.Lock()  # of the end of the process, which several threads may wait for
        try:
            _fork_server().send(json.dumps(order).encode(), [*streams, theirs])
        finally:
            os.close(theirs)
        self.pid = self._word()

    @classmethod
    def piped(cls, arguments: Sequence[str], environment: Mapping[str, str], out: int | None = None) -> ForkedProcess:
        """With all of its output in `stdout`; what it prints to standard output goes to the descriptor `out` instead,
        if there is one."""
        ours, theirs = os.pipe()
        try:
            with open(os.devnull, "rb") as nothing:
                process = cls(arguments, environment, nothing.fileno(), theirs if out is None else out, theirs)
        finally:
            os.close(theirs)
        process.stdout = os.fdopen(ours, encoding="utf-8")
        return process

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with self._lock:
            if self.returncode is None and self._ended_within(0):
                self.returncode = self._word()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises TimeoutExpired."""
        self._ended_within(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its end is about to be told
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended_within(self, seconds: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._status, select.POLLIN)
        return bool(waiting.poll(None if seconds is None else seconds * 1000))

    def _word(self) -> int:
        word = os.read(self._status, WORD)
        if len(word) < WORD:
            raise RuntimeError("the process that forks others has ended")
        return int.from_bytes(word, "little", signed=True)


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run until it ends. Raises TimeoutExpired after `seconds`."""
    temporary = functools.partial(TemporaryFile, "w+", encoding="utf-8")
    with temporary() as given, temporary() as out, temporary() as error:
        given.write(stdin)
        for file in (given, out, error):
            file.seek(0)
        process = ForkedProcess(arguments, environment, given.fileno(), out.fileno(), error.fileno())
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        for file in (out, error):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), error.read())


class _ForkServer:
    """The process that forks others. It ends with this one."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        source = str(Path(streamgauge.__file__).parents[1])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamgauge.testing.fork_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )
        atexit.register(self.close)

    def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        socket.send_fds(self._orders, [message], descriptors)

    def close(self) -> None:
        self._orders.close()
        self._process.wait()


@contextlib.contextmanager
def forking_workers() -> Iterator[None]:
    """While this lasts, processes that this one spawns are forked from one that has imported what query workers do,
    SQL too.

    They have the environment that this process has at first.
    """
    if not CAN_FORK:
        yield
        return
    from multiprocessing import forkserver, popen_forkserver

    forkserver.set_forkserver_preload([*WORKERS_IMPORT, "streamgauge.query.sql.run"])
    spawned: Any = context.SpawnProcess
    before = spawned.__dict__["_Popen"]  # a static method, which an attribute would no longer be
    spawned._Popen = staticmethod(popen_forkserver.Popen)
    try:
        yield
    finally:
        spawned._Popen = before


_fork_server = functools.cache(_ForkServer)
