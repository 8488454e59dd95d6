"""Clients that misbehave below HTTP, and many of them at once."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from streamgauge.testing import requests
from streamgauge.testing.requests import Series
from streamgauge.testing.server import ServerProcess
from streamgauge.testing.slow_client import drip, read_all

pytestmark = pytest.mark.usefixtures("responsive")

CONNECTIONS = 10_000
NOW = int(time.time() * 1000)


def head(server: ServerProcess, length: int, path: str = "/api/v1/write") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in requests.headers().items()]
    return "\r\n".join([*lines, "", ""]).encode()


def read_until(connection: socket.socket, end: bytes) -> None:
    received = b""
    while not received.endswith(end):
        piece = connection.recv(4096)
        assert piece, received
        received += piece


def test_a_body_that_stops_half_way(server: ServerProcess) -> None:
    """Its sender went away: nothing of it is stored, and the memory it was given is free again."""
    body = requests.snappy(requests.v1([Series({"__name__": "half"}, [(NOW, 1.0)])]))
    for end in (socket.SHUT_WR, socket.SHUT_RDWR):
        with server.connect() as connection:
            connection.sendall(head(server, len(body)) + body[: len(body) // 2])
            connection.shutdown(end)
            assert b" 204 " not in read_all(connection)
    assert server.query("half") == []
    assert server.metric("streamgauge_ingest_inflight_bytes") == 0


def test_a_chunked_body_that_lies(server: ServerProcess) -> None:
    chunked = head(server, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with server.connect() as connection:
        connection.sendall(chunked + b"zz\r\nabc")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    with server.connect() as connection:
        connection.sendall(chunked + b"5\r\nab")
        connection.shutdown(socket.SHUT_WR)
        assert b" 204 " not in read_all(connection)


def test_what_is_not_http(server: ServerProcess) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-OpenSSH\r\n", b"GET / HTTP/9.9\r\n\r\n", bytes(100)):
        with server.connect() as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            answer = read_all(connection)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_headers_without_end(server: ServerProcess) -> None:
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 200_000)
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_one_byte_a_second(server: ServerProcess) -> None:
    """Of a header, of a write's body and of a form: each is told so and let go, after ten seconds and some."""
    openings = [
        b"GET /api/v1/query?query=1 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        head(server, 100_000),
        head(server, 100_000, "/api/v1/query"),
    ]
    answers = drip(server, openings)
    assert len(answers) == 3
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 "), answer


HEALTHY = b"streamgauge is healthy.\n"
ASK = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def connections() -> Iterator[int]:
    """How many connections to open: 10,000, or 2,000 at most where descriptors are scarce."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 1_000
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    available = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield CONNECTIONS if available >= wanted else min(2_000, available - 700)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections(server: ServerProcess, connections: int) -> None:
    """Kept alive, they hold up nobody, and each of them can still ask."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(server.connect()) for _ in range(connections)]
        for connection in opened:
            connection.sendall(ASK)
        for connection in opened:
            read_until(connection, HEALTHY)
        assert server.metric("streamgauge_http_connections") > connections
        assert server.query("1 + 1")[1] == "2"
        for connection in opened[::500]:
            connection.sendall(ASK)
            read_until(connection, HEALTHY)
    assert server.query("1 + 1")[1] == "2"
