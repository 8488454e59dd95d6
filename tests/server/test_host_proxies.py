"""Real reverse proxies: what they serve becomes the history of their hosts."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamgauge.testing.free_port import bound
from streamgauge.testing.programs import required
from streamgauge.testing.server import SECONDS, ServerProcess, eventually

HAPROXY = """\
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend web
  bind 127.0.0.1:{web}
  default_backend shop
frontend metrics
  bind 127.0.0.1:{metrics}
  http-request use-service prometheus-exporter
backend shop
  server a 127.0.0.1:{backend} check inter 200
"""


class Shop(BaseHTTPRequestHandler):
    """Every fourth request fails."""

    count = 0

    def do_GET(self) -> None:
        Shop.count += 1
        self.send_response(503 if Shop.count % 4 == 0 else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[int]:
    """The port of a backend."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def free_ports(count: int) -> list[int]:
    sockets = [bound() for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextmanager
def program(home: Path, *command: str) -> Iterator[None]:
    environment = {**os.environ, **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(home))}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def caddy_config(admin: int, web: int, backend: int) -> str:
    proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{backend}"}]}
    server = {
        "listen": [f"127.0.0.1:{web}"],
        "automatic_https": {"disable": True},
        "routes": [{"match": [{"host": ["shop.example"]}], "handle": [proxy]}],
    }
    return json.dumps(
        {
            "admin": {"listen": f"127.0.0.1:{admin}"},
            "apps": {"http": {"metrics": {"per_host": True}, "servers": {"web": server}}},
        }
    )


def ask(port: int) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        try:
            connection.request("GET", "/", headers={"host": "shop.example"})
            return connection.getresponse().status
        except OSError:
            return 0


@pytest.mark.peer("caddy", "haproxy")
def test_caddy_and_haproxy_are_understood(start_server, shop: int, tmp_path: Path) -> None:
    caddy, caddy_admin, haproxy, haproxy_metrics = free_ports(4)
    (tmp_path / "caddy.json").write_text(caddy_config(caddy_admin, caddy, shop))
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(web=haproxy, metrics=haproxy_metrics, backend=shop))
    targets = [f"127.0.0.1:{caddy_admin}", f"127.0.0.1:{haproxy_metrics}"]
    scrape = {"job_name": "proxies", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    config = tmp_path / "config.yml"
    config.write_text(json.dumps({"host_history": {"interval": "1s"}, "scrape_configs": [scrape]}))

    def busy(server: ServerProcess, host: str) -> list[dict[str, float]]:
        asked = {"host": host, "start": f"{time.time() - 600}", "step": "1s"}
        samples = server.get("/telemetry/history", asked).json()["samples"]
        return [sample for sample in samples if sample["error_rate"] and sample["active_backends"]]

    with (
        program(tmp_path, required("caddy"), "run", "--config", str(tmp_path / "caddy.json")),
        program(tmp_path, required("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg")),
    ):
        server = start_server("--config", str(config))

        def both() -> bool:
            for port in (caddy, haproxy):
                for _ in range(8):
                    ask(port)
            return bool(busy(server, "shop.example") and busy(server, "shop"))

        eventually(both)
        assert {"shop.example", "shop"} <= set(server.get("/telemetry/hosts").json()["hosts"])
        by_caddy, by_haproxy = busy(server, "shop.example")[-1], busy(server, "shop")[-1]
        assert by_caddy["requests_sec"] > 0 < by_haproxy["requests_sec"]
        assert (by_caddy["active_backends"], by_haproxy["active_backends"]) == (1, 1)
        assert by_caddy["p99_ms"] > 0
        assert by_haproxy["p99_ms"] == 0, "it tells no distribution"
