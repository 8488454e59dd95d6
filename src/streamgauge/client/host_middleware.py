"""Requests of an ASGI or WSGI application, counted by host.

    app = HostMiddleware(app)

It wraps whatever is there: an application of Starlette, FastAPI, Litestar or Django, or, as `WsgiHostMiddleware`, one
of Flask, Django or any other framework.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

from streamgauge.client.asgi import App, Message, Receive, Scope, Send
from streamgauge.client.host_counters import CONTENT_TYPE, HostCounters

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Observe = Callable[[bytes, int, float], None]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

FAILED = 500
"""What a server answers in the place of an application that raises."""


class Exposition:
    """What is answered at a path of its own: the counters, to whoever shows the token. path: None for no path."""

    def __init__(self, counters: HostCounters, path: str, token: str) -> None:
        self.path = path or None
        self._counters = counters
        self._expected = f"Bearer {token}".encode() if token else b""

    def answer(self, authorization: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The status, headers and body."""
        if self._expected and not hmac.compare_digest(authorization, self._expected):
            body = b"the token is missing or wrong\n"
            headers = [("content-type", "text/plain; charset=utf-8"), ("www-authenticate", "Bearer")]
            return 401, [*headers, ("content-length", str(len(body)))], body
        body = self._counters.text()
        return 200, [("content-type", CONTENT_TYPE), ("content-length", str(len(body)))], body


class HostMiddleware:
    """An ASGI application around another. metrics_path: where it shows its counters, as Prometheus scrapes them; ""
    shows them nowhere. metrics_token: to be shown there as a bearer token."""

    def __init__(
        self, app: App, counters: HostCounters | None = None, *, metrics_path: str = "", metrics_token: str = ""
    ) -> None:
        self._app = app
        self.counters = counters or HostCounters()
        self._observe = self.counters.observe
        self._exposition = Exposition(self.counters, metrics_path, metrics_token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == self._exposition.path:
            await self._show(scope, send)
            return
        status = 0
        started = perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = FAILED
            raise
        finally:
            self._observe(_header(scope, b"host"), status, perf_counter() - started)

    async def _show(self, scope: Scope, send: Send) -> None:
        status, headers, body = self._exposition.answer(_header(scope, b"authorization"))
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _header(scope: Scope, wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""


class WsgiHostMiddleware:
    """A WSGI application around another; the parameters are those of HostMiddleware."""

    def __init__(
        self, app: WsgiApp, counters: HostCounters | None = None, *, metrics_path: str = "", metrics_token: str = ""
    ) -> None:
        self._app = app
        self.counters = counters or HostCounters()
        self._observe = self.counters.observe
        self._exposition = Exposition(self.counters, metrics_path, metrics_token)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "") == self._exposition.path:
            return self._show(environ, start_response)
        answer = _Answer(self._observe, environ, start_response)
        try:
            answer.body = self._app(environ, answer.start)
        except Exception:
            answer.end(FAILED)
            raise
        return answer

    def _show(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        status, headers, body = self._exposition.answer(environ.get("HTTP_AUTHORIZATION", "").encode("latin-1"))
        start_response("200 OK" if status == 200 else "401 Unauthorized", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


class _Answer:
    """What the server is given in the place of an answer, whose end is the request's. It is counted once, however it
    ends."""

    __slots__ = ("_ended", "_environ", "_observe", "_start_response", "_started", "_status", "body")

    def __init__(self, observe: Observe, environ: Environ, start_response: StartResponse) -> None:
        self._observe = observe
        self._environ = environ
        self._start_response = start_response
        self._status = "0"
        self._ended = False
        self.body: Iterable[bytes] = ()
        self._started = perf_counter()

    def start(self, status: str, *arguments: Any, **named: Any) -> Any:
        self._status = status[:3]
        return self._start_response(status, *arguments, **named)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body) if type(self.body) in (list, tuple) else self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self.body
        except Exception:
            self.end(FAILED)
            raise

    def close(self) -> None:
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.end(int(self._status) if self._status.isdecimal() else 0)

    def end(self, status: int) -> None:
        if not self._ended:
            self._ended = True
            took = perf_counter() - self._started
            host = self._environ.get("HTTP_HOST") or self._environ.get("SERVER_NAME") or ""
            self._observe(host.encode("latin-1", "replace"), status, took)
