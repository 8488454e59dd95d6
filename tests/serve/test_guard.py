"""A web page in somebody's browser must not reach the server."""

from __future__ import annotations

import socket

import pytest

from streamgauge.serve.services import HttpOptions

pytestmark = pytest.mark.anyio

OPTIONS = HttpOptions(allow_hosts=("gauge.example:4318", "Proxy.Example."), allow_origins=("https://grafana.example",))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:4318", "LOCALHOST", "localhost.", "app.localhost:1"),
        *("127.0.0.1", "127.0.0.1:4318", "192.168.1.7:80", "[::1]", "[::1]:4318", "[fe80::1]:80"),
        *("gauge.example", "gauge.example:9999", "proxy.example", socket.gethostname()),
    ],
)
async def test_names_of_this_server_are_served(serve, host: str):
    served = await serve(OPTIONS)
    assert (await served.http.get("/api/v1/rules", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:4318", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example"),
        *("", ":4318", "[::1", "127.0.0.1:x", "gauge.example@evil.example", "evil.example#localhost", "127.1", "é"),
        "a" * 253 + ".localhost" + ".evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/query?query=up", "/api/v1/labels"])
async def test_a_foreign_host_is_refused(serve, assert_error, host: str, path: str):
    served = await serve(OPTIONS)
    response = await served.http.get(path, headers={"host": host.encode()})
    assert_error(response, 403, "forbidden", "--allow-host")
    assert served.services.workers.jobs == []


@pytest.mark.parametrize("path", ["/", "/metrics", "/federate?match[]=up", "/-/healthy"])
async def test_a_foreign_host_is_refused_in_text_outside_the_api(served, path: str):
    response = await served.http.get(path, headers={"host": "evil.example"})
    assert (response.status_code, response.headers["content-type"]) == (403, "text/plain; charset=utf-8")


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"]])
async def test_exactly_one_host(served, connect, hosts: list[str]):
    client = await connect(served.server)
    headers = "".join(f"Host: {host}\r\n" for host in hosts)
    await client.send(f"GET /api/v1/labels HTTP/1.1\r\n{headers}\r\n".encode())
    assert (await client.read_head()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://localhost", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_a_foreign_origin_is_refused(serve, assert_error, origin: str, method: str):
    served = await serve(OPTIONS)
    headers = {"host": "localhost:4318", "origin": origin}
    response = await served.http.request(method, "/api/v1/query", headers=headers)
    assert_error(response, 403, "forbidden", "--allow-origin")
    assert "access-control-allow-origin" not in response.headers


async def test_at_most_one_origin(served, connect):
    client = await connect(served.server)
    origins = "Origin: https://evil.example\r\nOrigin: http://localhost\r\n"
    await client.send(f"GET /api/v1/labels HTTP/1.1\r\nHost: localhost\r\n{origins}\r\n".encode())
    assert (await client.read_head()).startswith(b"HTTP/1.1 400 ")


async def test_a_write_from_a_page_is_refused(served):
    headers = {"host": "localhost:4318", "origin": "https://evil.example"}
    assert (await served.http.post("/api/v1/write", headers=headers, content=b"x")).status_code == 403
    assert served.services.written == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_an_image_on_a_foreign_page_is_refused(served, assert_error, site: str):
    """Such a request has no Origin; browsers mark it otherwise."""
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert_error(await served.http.get("/api/v1/query?query=up", headers=headers), 403, "forbidden", "another site")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:4318"},
        {"origin": "https://LOCALHOST:4318"},
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
async def test_own_pages_the_address_bar_and_links_are_served(served, headers: dict[str, str]):
    response = await served.http.get("/api/v1/rules", headers={"host": "localhost:4318"} | headers)
    assert response.status_code == 200


async def test_an_allowed_origin_may_ask_and_read(serve):
    served = await serve(OPTIONS)
    origin = {"origin": "https://grafana.example"}
    response = await served.http.get("/api/v1/rules", headers=origin)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://grafana.example"
    assert "Origin" in response.headers.get_list("vary")
    preflight = await served.http.options("/api/v1/query", headers=origin | {"access-control-request-method": "POST"})
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    refused = await served.http.get("/api/v1/query?time=x", headers=origin)
    assert refused.headers["access-control-allow-origin"] == "https://grafana.example"


async def test_refusals_are_counted(served):
    await served.http.get("/", headers={"host": "evil.example"})
    assert served.stats.requests["refused", 403] == 1


async def test_a_form_of_a_foreign_page_is_refused_whatever_it_hides(served):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await served.http.post("/", content=b"{}", headers=headers)).status_code == 403
    assert (await served.http.post("/", content=b"{}", headers={"origin": "null"})).status_code == 403
    assert (await served.http.get("/", headers=headers)).status_code == 200
    assert served.services.event_sink.streams == {}
