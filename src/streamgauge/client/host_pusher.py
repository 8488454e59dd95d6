"""Sends an application's counters to a server, as remote write: to streamgauge or to any other that takes that.

One background thread does it, again and again. A push that fails is not repeated: the next one says all that this one
would have said, but for its moment.
"""

from __future__ import annotations

import atexit
import http.client
import os
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamgauge.client.address import Address, parse_address
from streamgauge.client.host_counters import BACKENDS, HostCounters
from streamgauge.client.remote_write import HEADERS, STALE, encode_labels, encode_request
from streamgauge.client.reports import Reports

INTERVAL_SECONDS = 15.0
ANSWER_SECONDS = 5.0
CLOSE_SECONDS = 10.0
"""A push that is under way has time to end, and the last one to be answered. A program's end waits no longer."""
PATH = "/api/v1/write"
_ANSWER_BYTES = 200

Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Pushes:
    """How many pushes the server has taken, how many failed, and why the last did; "" where it did not."""

    taken: int
    failed: int
    error: str


class HostPusher:
    """Pushes `counters` from now on until it is closed. In a child after a fork it begins anew, under the child's name.

    url: http:// or https://, of the server; without a path it is /api/v1/write. token, ca_file, headers, tls: as for a
    Writer. job, instance: labels of all that is pushed; instance is by default the machine's name and the process'
    number, and a child adds its number to what is given.
    """

    def __init__(
        self,
        url: str,
        counters: HostCounters,
        *,
        token: str = "",
        ca_file: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        job: str = "app",
        instance: str = "",
        interval: float = INTERVAL_SECONDS,
        on_error: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if ca_file is not None:
            if tls is not None:
                raise ValueError("ca_file and tls exclude each other")
            tls = ssl.create_default_context(cafile=os.fspath(ca_file))
        address = parse_address(url, headers or {}, tls, token)
        if address.websocket:
            raise ValueError("counters are pushed to a URL that begins with http:// or https://")
        if interval <= 0:
            raise ValueError("the interval must be more than 0 seconds")
        self._address = address
        self._target = PATH if address.target == "/" else address.target
        self._counters = counters
        self._job, self._instance = job, instance
        self._interval = interval
        self._on_error = on_error
        self._clock = clock
        self._begin(instance or _process_name())
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _begin_in_child(reference))

    def _begin(self, instance: str) -> None:
        self._labels = {"job": self._job, "instance": instance}
        self._reports = Reports(self._on_error)
        self._encoded: dict[Series, bytes] = {}  # the labels of what was pushed
        self._taken = self._failed = 0
        self._error = ""
        self._pushing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streamgauge-pusher", daemon=True)
        self._thread.start()

    def begin_in_child(self) -> None:
        """After a fork: the thread, and whoever held a lock, are the parent's."""
        if not self.closed:
            self._begin(f"{self._instance}:{os.getpid()}" if self._instance else _process_name())

    def push(self) -> bool:
        """Push now; whether the server has taken it."""
        with self._pushing:
            series = [(self._labels_of(name, labels), value) for name, labels, value in self._counters.samples()]
            return not series or self._send([(labels, struct.pack("<d", value)) for labels, value in series])

    def pushes(self) -> Pushes:
        return Pushes(self._taken, self._failed, self._error)

    def close(self) -> None:
        """Push a last time, and say that this process is no live backend any more. Waits for that no longer than
        CLOSE_SECONDS, and raises nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self.close)
        if self._thread is threading.current_thread():  # on_error closes it: the last push follows
            return
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._fail("close", f"the last push had not ended after {CLOSE_SECONDS:g} seconds")

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def __enter__(self) -> HostPusher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            self._guarded(self.push)
        self._guarded(self._end)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # whatever a function of the program's, that counts backends, does
            self._fail("read", f"the counters cannot be read: {error!r}")

    def _end(self) -> None:
        if not self.push():
            return
        with self._pushing:
            ended = [(labels, STALE) for (name, _), labels in self._encoded.items() if name == BACKENDS]
            if ended:
                self._send(ended, later=1)

    def _fail(self, kind: str, error: str) -> None:
        self._failed += 1
        self._error = error
        self._reports(kind, error)

    def _labels_of(self, name: str, labels: tuple[tuple[str, str], ...]) -> bytes:
        encoded = self._encoded.get((name, labels))
        if encoded is None:
            encoded = encode_labels({"__name__": name, **self._labels, **dict(labels)})
            self._encoded[name, labels] = encoded
        return encoded

    def _send(self, series: list[tuple[bytes, bytes]], later: int = 0) -> bool:
        """later: ms after this moment, so that what is sent now follows what was sent in the same millisecond."""
        body = encode_request(series, int(self._clock() * 1000) + later)
        try:
            error = _post(self._address, self._target, body)
        except (OSError, http.client.HTTPException) as failure:
            error = f"the server at {self._address} does not answer: {str(failure) or type(failure).__name__}"
        if error:
            self._fail("push", error)
            return False
        self._error = ""
        self._taken += 1
        return True


def _post(address: Address, target: str, body: bytes) -> str:
    """Why the server has not taken it; "" when it has. Raises OSError and HTTPException."""
    host, port = address.host, address.port
    connection = (
        http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
        if address.tls is None
        else http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=address.tls)
    )
    try:
        connection.request("POST", target, body, {**address.headers, **HEADERS})
        answer = connection.getresponse()
        said = answer.read(_ANSWER_BYTES).decode(errors="replace").strip()
    finally:
        connection.close()
    return "" if 200 <= answer.status < 300 else f"the server answered {answer.status}: {said}".rstrip(": ")


def _begin_in_child(reference: weakref.ref[HostPusher]) -> None:
    if (pusher := reference()) is not None:
        pusher.begin_in_child()


def _process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
