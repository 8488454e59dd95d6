"""What a worker has let go of when it says that a query is over: the server uses its memory again."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading

import pytest

from streamgauge.query.budget import Limits
from streamgauge.query.frames import Kind, WorkerChannel
from streamgauge.query.requests import Job, SqlFormat, SqlQuery
from streamgauge.query.worker import WorkerSettings, _answer, _Inbox
from streamgauge.testing.source import MemorySnapshot, MemorySource


class Watched(WorkerChannel):
    """Notes what was sent, and whether the query's connection was open then. cancels: the query, at its first rows."""

    def __init__(self, sock: socket.socket, inbox: _Inbox, cancels: bool) -> None:
        super().__init__(sock)
        self.sent: list[tuple[Kind, bool]] = []
        self._inbox = inbox
        self._cancels = cancels

    def send(self, kind: Kind, payload: bytes = b"", *, more: bool = False) -> None:
        self.sent.append((kind, any(thread.name == "query-watch" for thread in threading.enumerate())))
        if kind is Kind.CHUNK and self._cancels:
            self._inbox.cancel(1)


@pytest.mark.parametrize("cancels", [False, True])
def test_nothing_is_read_any_more_when_a_query_is_over(cancels: bool) -> None:
    query = SqlQuery("SELECT repeat('x', 100) FROM range(100000)", SqlFormat.NDJSON, ())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = _Inbox()
        channel = Watched(theirs, inbox, cancels)
        request = pickle.dumps((1, Job(query, Limits()), MemorySnapshot(MemorySource.of([])), 0.0))
        _answer(channel, request, inbox, WorkerSettings(memory_limit=1 << 30), {})
    assert (Kind.CHUNK, True) in channel.sent
    assert channel.sent[-1] == (Kind.ERROR if cancels else Kind.END, False)


def test_a_worker_whose_server_has_gone_says_nothing() -> None:
    """Also where the thread that listens to the server has not had its turn yet."""
    program = (
        "import socket\n"
        "from streamgauge.query import worker\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.close()\n"
        "worker._listen = lambda *_: None\n"
        "worker.main(theirs, worker.WorkerSettings(1 << 30))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
