"""Counters pushed to a real store by remote write."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from streamgauge.client import HostCounters, HostPusher, host_pusher
from streamgauge.client.remote_write import STALE, encode_labels, encode_request
from streamgauge.model.arrays import STALE_BITS
from streamgauge.testing import requests
from streamgauge.wire.snappy import decompress

NEVER = 3600.0


class Receiver:
    """An HTTP server that keeps what is posted, and answers `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.posts.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


def test_a_request_has_the_bytes_that_its_definition_asks_for() -> None:
    labels = {"__name__": "m", "host": "ä" * 100}
    made = decompress(encode_request([(encode_labels(labels), struct.pack("<d", 1.5))], 1_700_000_000_000), 1 << 20)
    assert made == requests.v1([requests.Series(labels, [(1_700_000_000_000, 1.5)])])
    assert decompress(encode_request([], 0), 10) == b""
    assert struct.pack("<Q", STALE_BITS) == STALE


def test_counters_are_pushed_under_names_of_the_process(receiver: Receiver) -> None:
    counters = HostCounters(bounds=(0.1,))
    with HostPusher(receiver.url, counters, token="t", instance="i", interval=NEVER, clock=lambda: 1700.0) as pusher:
        assert pusher.push(), "nothing to push is no failure"
        assert not receiver.posts
        counters.observe(b"a", 500, 0.05)
        assert pusher.push()
    path, headers, body = receiver.posts[0]
    assert (path, headers["authorization"]) == ("/api/v1/write", "Bearer t")
    wanted = {
        "http_host_requests_total": 1,
        "http_host_errors_total": 1,
        "http_host_request_duration_seconds_sum": 0.05,
        "http_host_request_duration_seconds_count": 1,
        "http_host_backends": 1,
    }
    plain = decompress(body, 1 << 20)
    for name, value in wanted.items():
        series = requests.Series({"__name__": name, "host": "a", "instance": "i", "job": "app"}, [(1_700_000, value)])
        assert requests.v1([series]) in plain
    assert plain.count(b"le") == 2


def test_closing_says_that_this_is_no_backend_any_more(receiver: Receiver) -> None:
    counters = HostCounters(bounds=(0.1,))
    pusher = HostPusher(receiver.url, counters, interval=NEVER, clock=lambda: 1700.0)
    counters.observe(b"a", 200, 0.05)
    pusher.close()
    pusher.close()
    pushed, ended = (decompress(body, 1 << 20) for _, _, body in receiver.posts)
    assert pushed.count(STALE) == 0
    assert ended.count(STALE) == ended.count(b"__name__") == ended.count(b"http_host_backends") == 1
    assert pusher.pushes().taken == 2


def test_a_server_that_refuses_or_is_away_costs_nothing_but_the_push(receiver: Receiver) -> None:
    said: list[str] = []
    counters = HostCounters()
    counters.observe(b"a", 200, 0.05)
    pusher = HostPusher(receiver.url, counters, interval=NEVER, on_error=said.append)
    receiver.status = 503
    assert not pusher.push()
    assert pusher.pushes().error == "the server answered 503"
    receiver.status = 204
    assert pusher.push()
    assert (pusher.pushes().taken, pusher.pushes().failed, pusher.pushes().error) == (1, 1, "")
    assert said == ["the server answered 503"]
    away = HostPusher("http://127.0.0.1:1", counters, interval=NEVER, on_error=said.append)
    assert not away.push()
    assert "127.0.0.1:1 does not answer" in away.pushes().error
    for each in (pusher, away):
        each.close()


def test_closing_raises_nothing_whatever_counts_the_backends() -> None:
    def broken(host: str) -> int:
        raise RuntimeError("docker is down")

    said: list[str] = []
    counters = HostCounters(backends=broken)
    counters.observe(b"a", 200, 0.05)
    pusher = HostPusher("http://127.0.0.1:1", counters, interval=NEVER, on_error=said.append)
    pusher.close()
    assert said == ["the counters cannot be read: RuntimeError('docker is down')"]
    assert pusher.pushes().failed == 1


def test_closing_does_not_wait_for_a_push_that_hangs(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_pusher, "CLOSE_SECONDS", 0.01)
    go_on = threading.Event()

    def slow(host: str) -> int:
        go_on.wait()
        return 1

    counters = HostCounters(backends=slow)
    counters.observe(b"a", 200, 0.05)
    pusher = HostPusher(receiver.url, counters, interval=NEVER, on_error=lambda message: None)
    pusher.close()
    assert pusher.pushes().error == "the last push had not ended after 0.01 seconds"
    go_on.set()
    pusher._thread.join()
    assert pusher.pushes().taken == 2, "it ends when it can"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_pushes_under_a_name_of_its_own(receiver: Receiver) -> None:
    counters = HostCounters()
    pusher = HostPusher(receiver.url, counters, interval=NEVER)
    child = os.fork()
    if child == 0:
        try:
            counters.observe(b"a", 200, 0.05)
            os._exit(0 if pusher.push() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    counters.observe(b"a", 200, 0.05)
    assert pusher.push()
    pusher.close()
    names = [b"%s:%d" % (socket.gethostname().encode(), number) for number in (child, os.getpid())]
    for name, (_, _, body) in zip(names, receiver.posts, strict=False):
        assert name in decompress(body, 1 << 20)


@pytest.mark.parametrize(("url", "interval"), [("ws://x", 1.0), ("x", 1.0), ("http://x", 0.0)])
def test_what_cannot_be_pushed_to_is_refused(url: str, interval: float) -> None:
    with pytest.raises(ValueError, match=r"URL|interval"):
        HostPusher(url, HostCounters(), interval=interval)
