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
        request = _Request(self._observe, environ, start_response)
        try:
            body = self._app(environ, request.start)
        except Exception:
            request.end(FAILED)
            raise
        answer = _SizedAnswer(request, body) if hasattr(body, "__len__") else _Answer(request, body)
        return body if _is_file(environ, body) and _closes(body, answer.close) else answer

    def _show(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        status, headers, body = self._exposition.answer(environ.get("HTTP_AUTHORIZATION", "").encode("latin-1"))
        start_response("200 OK" if status == 200 else "401 Unauthorized", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


class _Request:
    """What is counted, once, however it ends."""

    __slots__ = ("_ended", "_environ", "_observe", "_start_response", "_started", "_status")

    def __init__(self, observe: Observe, environ: Environ, start_response: StartResponse) -> None:
        self._observe = observe
        self._environ = environ
        self._start_response = start_response
        self._status = "0"
        self._ended = False
        self._started = perf_counter()

    def start(self, status: str, *arguments: Any, **named: Any) -> Any:
        self._status = status[:3]
        return self._start_response(status, *arguments, **named)

    def end(self, status: int | None = None) -> None:
        """status: by default that of the answer."""
        if not self._ended:
            self._ended = True
            took = perf_counter() - self._started
            if status is None:
                status = int(self._status) if self._status.isdecimal() else 0
            host = self._environ.get("HTTP_HOST") or self._environ.get("SERVER_NAME") or ""
            self._observe(host.encode("latin-1", "replace"), status, took)


class _Answer:
    """What the server is given in the place of a body, whose end is the request's."""

    __slots__ = ("_close", "_request", "body")

    def __init__(self, request: _Request, body: Iterable[bytes]) -> None:
        self._request = request
        self.body = body
        self._close: Callable[[], object] | None = getattr(body, "close", None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body) if type(self.body) in (list, tuple) else self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self.body
        except Exception:
            self._request.end(FAILED)
            raise

    def close(self) -> None:
        try:
            if self._close is not None:
                self._close()
        finally:
            self._request.end()


class _SizedAnswer(_Answer):
    """Servers compute the Content-Length of a body of one piece."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.body)  # type: ignore[arg-type]  # it was asked whether it has one


def _is_file(environ: Environ, body: Iterable[bytes]) -> bool:
    """Whether the server knows by its type that it can send it as a file."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _closes(body: Any, close: Callable[[], object]) -> bool:
    """Have the server call `close` in the place of the body's own; False for a body that cannot be told so."""
    try:
        body.close = close
    except (AttributeError, TypeError):
        return False
    return True
