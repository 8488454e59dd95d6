"""What an event costs the program that sends it: microseconds in the caller, for the client's writer and handler.

Two figures each: the caller's own work, as CPU time of its thread while there is no server yet; and the time that goes
by while the background thread sends to a server in a process of its own, and shares the interpreter's lock. What
`logging` takes with a handler that does nothing stands beside the handler's.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.report import Row
from streamgauge.client import Bounds, Handler, Retry, Writer

EVENTS = 20_000
ROUNDS = 5
AIM_MICROSECONDS = 10.0
_BOUNDS = Bounds(events=10 * EVENTS, bytes=1 << 30)
_NOBODY = "ws://127.0.0.1:1"
_SERVER = """
import sys
from streamgauge.testing.event_server import EventServer, Store
with EventServer(Store(numbered=True)) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Costs:
    """Microseconds an event in the caller, the best of some rounds: of CPU, and of the clock while events are sent."""

    own: float
    while_sending: float


def event(n: int) -> dict[str, object]:
    """About 200 bytes."""
    return {
        "level": "INFO",
        "message": "order accepted and passed on to the kitchen",
        "n": n,
        "user": {"id": n % 1000, "name": "somebody"},
        "http": {"method": "POST", "path": "/orders", "status": 201, "duration": 0.0123},
    }


def measure(url: str, make: Callable[[Writer], Callable[[int], object]]) -> Costs:
    """`make` gives the function that sends an event to a writer."""
    own = min(_without_server(make) for _ in range(ROUNDS))
    with Writer(url, bounds=_BOUNDS) as writer:
        send = make(writer)
        while_sending = min(_one_round(writer, send) for _ in range(ROUNDS))
    return Costs(own, while_sending)


def _without_server(make: Callable[[Writer], Callable[[int], object]]) -> float:
    """With a background thread that has failed to connect, and pauses."""
    failed = threading.Event()
    writer = Writer(_NOBODY, bounds=_BOUNDS, retry=Retry(3600, 3600), on_error=lambda _: failed.set())
    send = make(writer)
    send(0)
    failed.wait()
    took = _time(send, time.thread_time)
    writer.close(0)
    return took


def _one_round(writer: Writer, send: Callable[[int], object]) -> float:
    took = _time(send, time.perf_counter)
    if not writer.flush(60):
        raise RuntimeError("the server did not take the events")
    return took


def _time(send: Callable[[int], object], clock: Callable[[], float]) -> float:
    began = clock()
    for n in range(EVENTS):
        send(n)
    return (clock() - began) / EVENTS * 1e6


def _write(writer: Writer) -> Callable[[int], object]:
    return lambda n: writer.write(event(n))


def _log(writer: Writer) -> Callable[[int], object]:
    return _logging(Handler(writer))


def _logging(handler: logging.Handler) -> Callable[[int], object]:
    logger = logging.Logger("bench")
    logger.addHandler(handler)
    return lambda n: logger.info("order %d accepted", n, extra={"user": n % 1000})


def run() -> list[Row]:
    server = subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        return [
            row
            for scheme in ("ws", "http")
            for row in (_of_writer(f"{scheme}://127.0.0.1:{port}"), _of_handler(f"{scheme}://127.0.0.1:{port}"))
        ]
    finally:
        server.kill()
        server.wait()


def _of_writer(url: str) -> Row:
    costs = measure(url, _write)
    aim = f"at most {AIM_MICROSECONDS:g} of CPU"
    return _row(f"Writer.write, {url.partition(':')[0]}", costs, "", aim, costs.own <= AIM_MICROSECONDS)


def _of_handler(url: str) -> Row:
    costs = measure(url, _log)
    logging_alone = min(_time(_logging(logging.NullHandler()), time.thread_time) for _ in range(ROUNDS))
    beside = f"logging alone: {logging_alone:.1f} of CPU"
    return _row(f"logging.Handler, {url.partition(':')[0]}", costs, beside, "", None)


def _row(name: str, costs: Costs, peers: str, aim: str, met: bool | None) -> Row:
    ours = f"{costs.own:.1f} of CPU, {costs.while_sending:.1f} while sending"
    return Row(f"client, {name}: microseconds an event in the caller", ours, peers, None, aim, met)
