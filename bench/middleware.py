"""What counting a request by its host costs an application: microseconds of CPU, ASGI and WSGI, beside the bare one.

Hosts come in turn, as many as the table holds, each with a port, so that every look-up is of another spelling.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench.report import Row
from streamgauge.client import HostCounters, HostMiddleware, WsgiHostMiddleware
from streamgauge.client.asgi import App, Message, Receive, Scope, Send
from streamgauge.client.host_counters import MAX_HOSTS
from streamgauge.client.host_middleware import Environ, StartResponse, WsgiApp

REQUESTS = 10_000
ROUNDS = 20
AIM_MICROSECONDS = 10.0
HOSTS = [b"shop%d.example:8000" % number for number in range(MAX_HOSTS)]


def run() -> list[Row]:
    return [
        _row("ASGI", _asgi(asgi_application), _asgi(HostMiddleware(asgi_application, HostCounters()))),
        _row("WSGI", _wsgi(wsgi_application), _wsgi(WsgiHostMiddleware(wsgi_application, HostCounters()))),
    ]


def _row(kind: str, bare: float, counted: float) -> Row:
    cost = counted - bare
    work = f"middleware, {kind}: a request of one of {MAX_HOSTS} hosts, CPU"
    return Row(
        work, f"{cost:.1f} µs", f"{bare:.1f} µs without", None, f"{AIM_MICROSECONDS:.0f} µs", cost < AIM_MICROSECONDS
    )


def _best(one_round: Callable[[], None]) -> float:
    """Microseconds a request, of the best round."""
    took = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        one_round()
        took.append(time.process_time() - begun)
    return min(took) / REQUESTS * 1e6


# ---- ASGI -----------------------------------------------------------------------------------------------------------


async def asgi_application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"tea"})


def _asgi(app: App) -> float:
    headers = [(b"user-agent", b"x"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip")]
    scopes = [{"type": "http", "method": "GET", "path": "/", "headers": [*headers, (b"host", host)]} for host in HOSTS]

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    async def requests() -> None:
        for number in range(REQUESTS):
            await app(scopes[number % len(scopes)], receive, send)

    return _best(lambda: asyncio.run(requests()))


# ---- WSGI -----------------------------------------------------------------------------------------------------------


def wsgi_application(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [])
    return [b"tea"]


def _wsgi(app: WsgiApp) -> float:
    environs = [{"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": host.decode()} for host in HOSTS]

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
        pass

    def requests() -> None:
        for number in range(REQUESTS):
            answer = app(environs[number % len(environs)], start_response)
            for _ in answer:
                pass
            if (close := getattr(answer, "close", None)) is not None:
                close()

    return _best(requests)
