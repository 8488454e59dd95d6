"""`python -m streamgauge.testing.fork_server FD`: runs `streamgauge` in forks, which have imported everything.

A test of the real server then costs what the server does, not the two seconds of processor time that its interpreter
and those of its workers take to start. Each message that comes by the socket FD is a JSON object, `arguments`,
`environment` and `folder`, with the descriptors of standard input, output and error and of a pipe. Into the pipe go the
process' id and, when it has ended, its exit code as subprocess has it, each as four bytes.

What such a process spawns by multiprocessing is forked too, by a process of its own that has done nothing yet. Linux
only; it knows how multiprocessing of Python 3.11 to 3.13 is made.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, context
from typing import Any

WORKERS_IMPORT = ["streamgauge.query.dispatch", "streamgauge.query.stream", "streamgauge.query.worker"]
PRELOADED = (
    *WORKERS_IMPORT,
    "streamgauge.cli",
    "streamgauge.commands.backup",
    "streamgauge.commands.exporter.run",
    "streamgauge.commands.federate",
    "streamgauge.commands.importer.run",
    "streamgauge.config",
    "streamgauge.main",
    "streamgauge.store.jobs",
    "streamgauge.store.offline",
)
"""What servers, their workers and most commands import, but for engines that complain when an interpreter ends."""
LARGEST = 1 << 20
"""Bytes of a message: several times what an environment has."""
WORD = 4


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to be."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    order = _serve(socket.socket(fileno=int(sys.argv[1])))
    if order is None:
        return
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    time.tzset()
    sys.argv = ["streamgauge", *order.arguments]
    _fork_what_is_spawned()
    from streamgauge.cli import main as command_line

    command_line()


def _serve(orders: socket.socket) -> Order | None:
    """Fork a process for each order. Returns in each of them with its order, and with None once no more can come."""
    children: dict[int, int] = {}  # the pipes by the processes' ids
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the whole group; who started us decides
    sources: list[Any] = [orders, woken]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if woken in ready:
            os.read(woken, 4096)
            _bury(children)
        if orders not in ready:
            continue
        message, descriptors = _received(orders)
        if not message:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return None
        *streams, pipe = descriptors
        pid = os.fork()
        if pid == 0:
            for descriptor in (woken, wake, pipe, *children.values()):
                os.close(descriptor)
            orders.close()
            _take_over(streams)
            return Order(**json.loads(message))
        for descriptor in streams:
            os.close(descriptor)
        children[pid] = pipe
        _tell(pipe, pid)


def _received(orders: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors; nothing at the end."""
    message, descriptors, _, _ = socket.recv_fds(orders, LARGEST, 4)
    return message, descriptors


def _bury(children: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pipe = children.pop(ended[0])
            _tell(pipe, os.waitstatus_to_exitcode(ended[1]))
            os.close(pipe)


def _tell(pipe: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(pipe, number.to_bytes(WORD, "little", signed=True))


def _take_over(streams: list[int]) -> None:
    """Make a forked process like one that was just started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _written_to(1, sys.stdout, line_buffering=False)
    sys.stderr = _written_to(2, sys.stderr, line_buffering=True)


def _written_to(descriptor: int, like: Any, line_buffering: bool) -> io.TextIOWrapper:
    """A stream that knows what its descriptor is now."""
    binary = open(descriptor, "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(binary, like.encoding, like.errors, None, line_buffering, like.write_through)


def _fork_what_is_spawned() -> None:
    """Lets multiprocessing take its forking server, begun here by a fork, for whatever this process spawns."""
    from multiprocessing import forkserver, popen_forkserver  # which Windows does not have

    listener = socket.socket(socket.AF_UNIX)
    address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    listener.bind(address)
    listener.listen()
    alive, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        with suppress(SystemExit):
            forkserver.main(listener.fileno(), alive, [])
        os._exit(0)
    os.close(alive)
    listener.close()
    known: Any = forkserver._forkserver
    known._forkserver_address, known._forkserver_alive_fd, known._forkserver_pid = address, ours, pid
    spawned: Any = context.SpawnProcess
    spawned._Popen = staticmethod(popen_forkserver.Popen)


if __name__ == "__main__":
    main()
