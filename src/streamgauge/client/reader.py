"""A data reader: a gRPC server that is asked for the values of a device or a program.

    def read():
        yield Datum("temperature", 21.5, {"room": "kitchen"})

    with Reader(read, "127.0.0.1:50052"):
        …

Whatever polls services of this kind can ask it: a server with grpc_poll_configs, `streamgauge poll`, or the programs
for which the definition was made. Needs the package grpcio, which is imported with the first reader.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgauge.errors import ListenFailed
from streamgauge.wire.timeseries import TELEMETRY, encode_datum

LOG = logging.getLogger(__name__)

THREADS = 4
"""Polls that are answered at once. One or two programs ask, once a minute or so."""
WAITING = 16
"""Polls at once, those that wait included; the next is refused."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4096),
    ("grpc.max_concurrent_streams", WAITING),
    ("grpc.max_allowed_incoming_connections", 64),
    ("grpc.server_handshake_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class Datum:
    """A value. time: ns since the Unix epoch; None is the moment at which it is sent."""

    metric: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    time: int | None = None


Read = Callable[[], Iterable[Datum] | AsyncIterator[Datum]]
"""Called for each poll, on one of THREADS threads of the reader's own; an async generator has an event loop to itself,
and is read to its end before anything is sent. It must return: a call that hangs holds its thread for good, and when
all are held no poll is answered any more."""


class Reader:
    """Answers polls until it is closed. port 0 takes a free one. cert_file, key_file: PEM; TLS is spoken then. token:
    what a caller has to show. A poll in which `read` raises fails, and is logged; the next one is answered again.

    Raises ListenFailed, and ImportError without grpcio.
    """

    def __init__(
        self, read: Read, address: str = "127.0.0.1:50052", *, cert_file: str = "", key_file: str = "", token: str = ""
    ) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        self._read = read
        self._token = f"Bearer {token}".encode() if token else b""
        self._lock = threading.Lock()
        self._polls = self._failures = 0
        self._codes = grpc.StatusCode
        self._threads = _Threads(address)
        executor: Any = self._threads  # any will do, whatever the stubs say
        self._server = grpc.server(executor, options=_OPTIONS, maximum_concurrent_rpcs=WAITING)
        handler: Any = grpc.unary_stream_rpc_method_handler(self._answer)
        handlers = grpc.method_handlers_generic_handler(TELEMETRY, {"GetTimeSeriesData": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        host, _, _ = address.rpartition(":")
        try:
            if cert_file:
                pair = (Path(key_file or cert_file).read_bytes(), Path(cert_file).read_bytes())
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise ListenFailed(f"cannot listen on {address}: it is taken, or is no address HOST:PORT") from None
        self.address = f"{host}:{port}"
        self._threads.start()
        self._server.start()

    @property
    def polls(self) -> int:
        """That were answered."""
        return self._polls

    @property
    def failures(self) -> int:
        """Polls in which `read` raised."""
        return self._failures

    def wait(self) -> None:
        """Return when it is closed."""
        self._server.wait_for_termination()

    def close(self) -> None:
        """Break off what is being answered, and end."""
        self._server.stop(0).wait()
        self._threads.shutdown()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _answer(self, request: bytes, context: Any) -> Iterator[bytes]:
        if self._token and not self._is_known(context):
            context.abort(self._codes.UNAUTHENTICATED, "this reader asks for a token")
        try:
            for datum in _all_of(self._read()):
                if not context.is_active():
                    return
                now = time.time_ns() if datum.time is None else datum.time
                yield encode_datum(datum.metric, datum.labels, datum.value, now)
        except Exception:  # whatever a user's function does
            with self._lock:
                self._failures += 1
            LOG.warning("the reader at %s failed", self.address, exc_info=True)
            context.abort(self._codes.INTERNAL, "the reader failed")
        with self._lock:
            self._polls += 1

    def _is_known(self, context: Any) -> bool:
        shown = [value for key, value in context.invocation_metadata() if key == "authorization"]
        return len(shown) == 1 and hmac.compare_digest(str(shown[0]).encode(), self._token)


def _all_of(data: Iterable[Datum] | AsyncIterator[Datum]) -> Iterable[Datum]:
    if not isinstance(data, AsyncIterator):
        return data

    async def collected() -> list[Datum]:
        return [datum async for datum in data]  # in one task, as its timeouts and task groups need

    return asyncio.run(collected())


class _Threads(Executor):
    """THREADS of them, which a program that ends does not wait for, as it would for those of the standard library."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._busy = 0  # polls that are answered, or wait for that
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def start(self) -> None:
        for number in range(THREADS):
            threading.Thread(target=self._run, name=f"reader-{number}", daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._count(1)
        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Threads end after what they are doing, and what waits."""
        for _ in range(THREADS):
            self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # else it lives until the next
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._busy += more
            waits = more > 0 and self._busy == THREADS + 1
        if waits:
            LOG.warning(
                "the reader at %s: %d polls are still being answered, and the next ones wait; does `read` return?",
                self._address,
                THREADS,
            )
