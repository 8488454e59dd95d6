"""The process in which queries run, one at a time.

Its first module imports little: signals are set before anything that takes time, and what a query needs is imported
before the worker reports that it is ready.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import mmap
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from streamgauge.errors import QueryFailed, StreamgaugeError
from streamgauge.heap import keep_free_memory
from streamgauge.query.frames import CHUNK_BYTES, Kind, WorkerChannel
from streamgauge.spawn import end_with_the_server, leave_signals_to_the_server

if TYPE_CHECKING:
    from streamgauge.query.budget import Budget

IDLE_SECONDS = 1.0
"""Memory that a query has used is kept for the next one for so long: to have it mapped anew takes a fifth of the time
of a query over five million samples."""
KEPT_BYTES = 768 << 20
"""With more than that it is given back at once."""

_HEAP_BYTES = 64 << 20
_MAPPED_BYTES = 8 << 20
"""What is kept at the end of the heap, and how large an array has a mapping of its own: otherwise what a query decodes
is given back and taken anew, row group by row group, which is half of the time of reading a column."""

HIDDEN = "internal error; the server's log says more"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    memory_limit: int
    """Bytes that a query may allocate, all together. On Linux the kernel refuses more."""
    preload: tuple[str, ...] = ()
    """Modules that snapshots and formats of answers will need."""


def main(sock: socket.socket, settings: WorkerSettings) -> None:
    """The life of a worker: it ends, at whatever it is, when the other end of `sock` is closed."""
    if sys.stderr is not None:  # as in a program without a console on Windows
        faulthandler.enable()  # a crash shows there where it was
    leave_signals_to_the_server()
    end_with_the_server()
    channel = WorkerChannel(sock)
    inbox = _Inbox()
    threading.Thread(target=_listen, args=(channel, inbox), name="query-control", daemon=True).start()
    keep_free_memory(_HEAP_BYTES, _MAPPED_BYTES)
    _import(settings.preload)
    gc.freeze()  # what was imported stays: collecting after each query then takes microseconds, not milliseconds
    _offer_to_the_oom_killer()
    _limit_memory(settings.memory_limit)
    kept: dict[str, object] = {}
    with contextlib.suppress(ConnectionError):  # the server has gone
        while True:
            channel.send(Kind.READY)
            _answer(channel, inbox.next_request(), inbox, settings, kept)
            if _private_bytes() > KEPT_BYTES:
                _free_memory()


class _Inbox:
    """What came from the server: requests, and which one is cancelled. Shared by both threads."""

    def __init__(self) -> None:
        self.requests: SimpleQueue[bytes] = SimpleQueue()
        self._lock = threading.Lock()
        self._canceled = -1
        self._running: tuple[int, Budget] | None = None

    def next_request(self) -> bytes:
        """Wait for a request; when none comes for a while, give back the memory that the last ones have used."""
        try:
            return self.requests.get(timeout=IDLE_SECONDS)
        except Empty:
            _free_memory()
            return self.requests.get()

    def begin(self, query_id: int, budget: Budget) -> None:
        with self._lock:
            self._running = (query_id, budget)
            if self._canceled == query_id:
                budget.cancel()

    def end(self) -> None:
        with self._lock:
            self._running = None

    def cancel(self, query_id: int) -> None:
        with self._lock:
            self._canceled = query_id  # its request may not have been taken up yet
            if self._running is not None and self._running[0] == query_id:
                self._running[1].cancel()


def _listen(channel: WorkerChannel, inbox: _Inbox) -> None:
    try:
        while (frame := channel.receive()) is not None:
            kind, payload = frame
            if kind is Kind.REQUEST:
                inbox.requests.put(payload)
            elif kind is Kind.CANCEL:
                inbox.cancel(int(payload))
    finally:
        # The server has closed its end or was killed. The main thread may be in the middle of a query that nobody
        # waits for, or in a call that never returns.
        os._exit(0)


def _answer(
    channel: WorkerChannel, request: bytes, inbox: _Inbox, settings: WorkerSettings, kept: dict[str, object]
) -> None:
    """Answer one request. Nothing of the query is referred to when its end is told: from then on the server may use the
    memory again that it read."""
    failure: StreamgaugeError | None = None
    try:
        _run(channel, inbox, request, kept)
    except StreamgaugeError as error:
        failure = error.with_traceback(None)  # whose frames have the answer, half computed, and all that it reads
    except MemoryError:
        limit = settings.memory_limit >> 20
        failure = QueryFailed(f"query needs more than {limit} MiB of memory; narrow it")
    except BaseException:  # a panic of a library written in Rust is no Exception
        channel.send(Kind.FAULT, traceback.format_exc().encode(errors="replace"), more=True)
        failure = StreamgaugeError(HIDDEN)
    inbox.end()
    if failure is None:
        channel.send(Kind.END)
    else:
        channel.send(Kind.ERROR, json.dumps({"name": _name(failure), "message": failure.message}).encode())


def _run(channel: WorkerChannel, inbox: _Inbox, request: bytes, kept: dict[str, object]) -> None:
    from streamgauge.query.budget import Budget
    from streamgauge.query.dispatch import execute
    from streamgauge.query.stream import compressed, framed

    query_id, job, snapshot, waited = pickle.loads(request)
    budget = Budget(job.limits, waited=waited)
    inbox.begin(query_id, budget)
    begun = time.perf_counter()
    source = snapshot.open(kept)
    response = execute(job, source, budget, waited, time.perf_counter() - begun, kept)
    frames = framed(compressed(response.body, job.encoding), CHUNK_BYTES)
    frame = next(frames, b"")  # what fails up to here has an answer of its own
    head = {"content_type": response.content_type, "encoding": job.encoding}
    channel.send(Kind.HEAD, json.dumps(head).encode(), more=True)
    while frame:
        budget.check()
        channel.send(Kind.CHUNK, frame, more=len(frame) < CHUNK_BYTES)
        frame = next(frames, b"")


def _name(error: StreamgaugeError) -> str:
    """The name by which the server knows a class of errors, or the nearest one above it."""
    known = StreamgaugeError.__module__
    return next(each.__name__ for each in type(error).__mro__ if each.__module__ == known)


def _private_bytes() -> int:
    """Memory that is this process' alone. Where the system does not say it, more than may be kept."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return KEPT_BYTES + 1
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def _free_memory() -> None:
    """Give memory back. Without this the allocator kept 2.2 GB after a query of 100 M values; with it, 4 MB."""
    import pyarrow

    gc.collect()
    pyarrow.default_memory_pool().release_unused()


def _import(preload: tuple[str, ...]) -> None:
    # Nothing here needs a parallel BLAS; each of its threads would keep a buffer of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    import pyarrow

    # Arrow's own allocator reserves a GiB at once, which counts against the limit, and gives nothing back.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    for module in ("streamgauge.query.dispatch", "streamgauge.query.stream", *preload):
        importlib.import_module(module)
    gc.enable()


def _offer_to_the_oom_killer() -> None:
    """When the machine runs out of memory a query is to go, not the server."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _limit_memory(limit: int) -> None:
    """Let the kernel refuse private memory beyond `limit` bytes above what is in use now. Linux only.

    RLIMIT_DATA leaves out what RLIMIT_AS would count, the shared segments and the mapped files of the store.
    """
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + limit
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
