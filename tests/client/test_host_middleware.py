"""Requests counted by host, within the frameworks that people use and without any."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamgauge.client import HostCounters, HostMiddleware, Middleware, WsgiHostMiddleware
from streamgauge.client.asgi import App, Receive, Scope, Send
from streamgauge.client.host_counters import OTHER, host_name


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the status that the path names; /raise raises, /late does so when the answer has begun."""
    if scope["path"] == "/raise":
        raise ValueError("no tea")
    status = int(scope["path"].strip("/")) if scope["path"].strip("/").isdecimal() else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    if scope["path"] == "/late":
        raise ValueError("no more tea")
    await send({"type": "http.response.body", "body": b"tea"})


def get(app: App, path: str, host: str = "shop.example", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            return await client.get(path, headers={"host": host, **headers})

    return asyncio.run(ask())


def get_wsgi(app: Any, path: str, host: str = "shop.example") -> httpx.Response:
    transport = httpx.WSGITransport(app, raise_app_exceptions=False)
    with httpx.Client(transport=transport, base_url="http://shop.example") as client:
        return client.get(path, headers={"host": host})


def totals(counters: HostCounters) -> dict[str, tuple[int, int]]:
    """Requests and errors by host."""
    return {host: (counts.requests, counts.errors) for host, counts in counters.read().items()}


# ---- any application ------------------------------------------------------------------------------------------------


def test_requests_and_errors_are_counted_by_host() -> None:
    app = HostMiddleware(plain)
    for path in ("/", "/404", "/503", "/raise", "/late"):
        get(app, path)
    get(app, "/", "Other.Example:8443")
    assert totals(app.counters) == {"shop.example": (5, 3), "other.example": (1, 0)}
    counts = app.counters.read()["shop.example"]
    assert sum(counts.buckets) == 5
    assert counts.backends == 1


def test_latency_falls_into_buckets() -> None:
    counters = HostCounters(bounds=(0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        counters.observe(b"a", 200, seconds)
    assert counters.read()["a"].buckets == (2, 1, 1)
    lines = counters.text().decode().splitlines()
    assert 'http_host_request_duration_seconds_bucket{host="a",le="0.1"} 2' in lines
    assert 'http_host_request_duration_seconds_bucket{host="a",le="1"} 3' in lines
    assert 'http_host_request_duration_seconds_bucket{host="a",le="+Inf"} 4' in lines
    assert 'http_host_request_duration_seconds_sum{host="a"} 7.65' in lines


def test_whoever_chooses_the_host_cannot_fill_the_table() -> None:
    counters = HostCounters(max_hosts=3)
    counters.observe(b"mine", 200, 0.1)
    for number in range(50):
        counters.observe(b"forged%d" % number, 400, 0.1)  # as an application answers that knows its hosts
    assert totals(counters) == {"mine": (1, 0), OTHER: (50, 0)}
    for number in range(10_000):
        counters.observe(b"h%d" % number, 200, 0.1)
    assert len(counters.read()) == 4
    assert sum(requests for requests, _ in totals(counters).values()) == 10_051
    assert len(counters._spellings) <= 24


def test_a_list_of_hosts_admits_no_others() -> None:
    counters = HostCounters(["Shop.Example", "b.example"])
    for host in (b"shop.example", b"SHOP.example:80", b"evil.example", b"b.example"):
        counters.observe(host, 400, 0.1)
    assert totals(counters) == {"shop.example": (2, 0), "b.example": (1, 0), OTHER: (1, 0)}


def test_a_list_of_hosts_is_read_as_headers_are() -> None:
    counters = HostCounters(["Shop.example:8080", "b.example.", "[2001:DB8::1]:80"])
    for host in (b"shop.example", b"b.example", b"[2001:db8::1]"):
        counters.observe(host, 200, 0.1)
    assert totals(counters) == {"shop.example": (1, 0), "b.example": (1, 0), "[2001:db8::1]": (1, 0)}


@pytest.mark.parametrize("hosts", ["shop.example", ["münchen.example"], ["東京.example"], ["a", ""], ["a b"]])
def test_hosts_that_no_header_could_name_are_refused(hosts: list[str]) -> None:
    with pytest.raises(ValueError, match="host"):
        HostCounters(hosts)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"Shop.Example.:8000", "shop.example"),
        (b"[2001:DB8::1]:80", "[2001:db8::1]"),
        (b"10.0.0.1", "10.0.0.1"),
        (b"", None),
        (b'x",le="1', None),
        (b"a b", None),
        (b"a\nb", None),
        (b"x" * 300, None),
        ("schön.example".encode(), None),
        (b"a:80:90", None),
    ],
)
def test_what_is_no_host_name_is_none(header: bytes, name: str | None) -> None:
    assert host_name(header) == name


def test_backends_are_asked_for_by_host() -> None:
    counters = HostCounters(backends={"a": 3, "b": 0}.__getitem__)
    for host in (b"a", b"b", b"?"):
        counters.observe(host, 200, 0.1)
    assert {host: counts.backends for host, counts in counters.read().items()} == {"a": 3, "b": 0, OTHER: 0}


def test_threads_lose_no_request() -> None:
    counters = HostCounters()

    def work() -> None:
        for _ in range(5_000):
            counters.observe(b"a", 500, 0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals(counters) == {"a": (20_000, 20_000)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_begins_anew() -> None:
    counters = HostCounters()
    counters.observe(b"a", 200, 0.1)
    child = os.fork()
    if child == 0:
        try:
            counters.observe(b"b", 200, 0.1)
            os._exit(0 if totals(counters) == {"b": (1, 0)} else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert totals(counters) == {"a": (1, 0)}


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_counters_are_shown_where_that_is_wanted_and_to_whom() -> None:
    app = HostMiddleware(plain, metrics_path="/metrics", metrics_token="secret")
    get(app, "/503")
    refused = get(app, "/metrics")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    answer = get(app, "/metrics", authorization="Bearer secret")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    counted = [line for line in answer.text.splitlines() if line.startswith("http_host_requests_total")]
    assert counted == ['http_host_requests_total{host="shop.example"} 1']
    assert answer.text.count("# TYPE ") == 4
    assert get(HostMiddleware(plain), "/metrics").text == "tea", "nothing is shown that nobody has asked for"


def test_what_is_shown_is_prometheus_text() -> None:
    counters = HostCounters(bounds=(0.1, 1))
    for host, seconds in ((b"a", 0.05), (b"a", 5.0), (b"b", 0.5)):
        counters.observe(host, 500, seconds)
    families = {family.name: family for family in text_string_to_metric_families(counters.text().decode())}
    assert [(name, family.type) for name, family in families.items()] == [
        ("http_host_requests", "counter"),
        ("http_host_errors", "counter"),
        ("http_host_request_duration_seconds", "histogram"),
        ("http_host_backends", "gauge"),
    ]
    samples = families["http_host_request_duration_seconds"].samples
    shown = {(sample.name[-6:], sample.labels["host"], sample.labels.get("le")): sample.value for sample in samples}
    assert shown["bucket", "a", "0.1"] == shown["bucket", "a", "1"] == 1
    assert shown["bucket", "a", "+Inf"] == shown["_count", "a", None] == 2
    assert len(samples) == 10


def test_spans_and_counters_go_together() -> None:
    class Written:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def write(self, event: object, /) -> bool:
            self.events.append(event)
            return True

    app, written = HostMiddleware(plain), Written()
    assert get(Middleware(app, written), "/503").status_code == 503
    assert written.events[0]["http"]["status"] == 503
    assert totals(app.counters) == {"shop.example": (1, 1)}


def test_websockets_and_lifespans_are_not_requests() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    wrapped = HostMiddleware(app)
    for kind in ("lifespan", "websocket"):
        asyncio.run(wrapped({"type": kind}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]
    assert not wrapped.counters.read()


# ---- WSGI -----------------------------------------------------------------------------------------------------------


def test_wsgi_applications_are_counted_however_they_end() -> None:
    closed: list[str] = []

    class Pieces:
        def __init__(self, path: str) -> None:
            self.path = path

        def __iter__(self) -> Any:
            yield b"tea"
            if self.path == "/late":
                raise ValueError("no more tea")

        def close(self) -> None:
            closed.append(self.path)

    def app(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/raise":
            raise ValueError("no tea")
        start_response("503 Busy" if path == "/503" else "200 OK", [("content-type", "text/plain")])
        return [b"tea"] if path == "/list" else Pieces(path)

    wrapped = WsgiHostMiddleware(app, metrics_path="/metrics")
    for path in ("/", "/list", "/503"):
        assert get_wsgi(wrapped, path).text == "tea"
    for path in ("/raise", "/late"):
        with pytest.raises(ValueError, match="tea"):
            get_wsgi(wrapped, path)
    assert totals(wrapped.counters) == {"shop.example": (5, 3)}
    assert closed[:2] == ["/", "/503"]
    assert 'http_host_errors_total{host="shop.example"} 3' in get_wsgi(wrapped, "/metrics").text


def served(app: Any) -> tuple[bytes, type]:
    """The answer of a server of the standard library, and the type of the body that it was given."""
    written, given = io.BytesIO(), []

    def watched(environ: Any, start_response: Any) -> Any:
        given.append(app(environ, start_response))
        return given[0]

    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "shop.example"}
    handler = SimpleHandler(io.BytesIO(), written, io.StringIO(), environ, multithread=False)
    handler.http_version = "1.1"
    handler.run(watched)
    return written.getvalue(), type(given[0])


def test_a_wsgi_server_still_sees_how_long_an_answer_is() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"tea\n"]

    wrapped = WsgiHostMiddleware(app)
    bare, counted = served(app)[0], served(wrapped)[0]
    assert b"Content-Length: 4\r\n" in bare
    assert b"Content-Length: 4\r\n" in counted
    assert totals(wrapped.counters) == {"shop.example": (1, 0)}


def test_a_wsgi_server_still_sees_files() -> None:
    files: list[io.BytesIO] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        files.append(io.BytesIO(b"tea\n"))
        return environ["wsgi.file_wrapper"](files[0])

    wrapped = WsgiHostMiddleware(app)
    answer, given = served(wrapped)
    assert answer.endswith(b"tea\n")
    assert given is FileWrapper
    assert files[0].closed
    assert totals(wrapped.counters) == {"shop.example": (1, 0)}


# ---- frameworks -----------------------------------------------------------------------------------------------------


def test_starlette_and_fastapi() -> None:
    import fastapi
    import starlette.applications
    import starlette.responses
    import starlette.routing

    async def broken(request: Any = None) -> Any:
        return starlette.responses.PlainTextResponse("no", 502)

    counters = HostCounters()
    routes = [starlette.routing.Route("/broken", broken)]
    app = starlette.applications.Starlette(routes=routes)
    app.add_middleware(HostMiddleware, counters=counters)
    assert get(app, "/broken").status_code == 502
    api = fastapi.FastAPI()
    api.add_middleware(HostMiddleware, counters=counters, metrics_path="/metrics")
    api.get("/x")(lambda: {"tea": 1})
    assert get(api, "/x").json() == {"tea": 1}
    assert totals(counters) == {"shop.example": (2, 1)}
    assert "http_host_backends" in get(api, "/metrics").text


def test_litestar() -> None:
    import litestar
    from litestar.middleware import DefineMiddleware

    @litestar.get("/x")
    async def handler() -> dict[str, int]:
        return {"tea": 1}

    counters = HostCounters()
    app = litestar.Litestar([handler], middleware=[DefineMiddleware(HostMiddleware, counters=counters)])
    assert get(app, "/x").json() == {"tea": 1}  # type: ignore[arg-type]
    assert totals(counters) == {"shop.example": (1, 0)}


def test_flask() -> None:
    import flask

    app = flask.Flask("shop")
    app.get("/x")(lambda: ("no", 500))
    counters = HostCounters()
    app.wsgi_app = WsgiHostMiddleware(app.wsgi_app, counters)  # type: ignore[method-assign]
    assert get_wsgi(app, "/x").text == "no"
    assert totals(counters) == {"shop.example": (1, 1)}


def test_django_both_ways() -> None:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    urls = type("urls", (), {"urlpatterns": [path("x", lambda request: HttpResponse("tea"))]})
    common = ["django.middleware.common.CommonMiddleware"]
    settings.configure(ALLOWED_HOSTS=["shop.example"], ROOT_URLCONF=urls, SECRET_KEY="x" * 50, MIDDLEWARE=common)
    django.setup()
    counters = HostCounters()
    wsgi = WsgiHostMiddleware(get_wsgi_application(), counters)
    assert get_wsgi(wsgi, "/x").text == "tea"
    assert get(HostMiddleware(get_asgi_application(), counters), "/x").text == "tea"
    assert get_wsgi(wsgi, "/x", "evil.example").status_code == 400
    assert totals(counters) == {"shop.example": (2, 0), OTHER: (1, 0)}
