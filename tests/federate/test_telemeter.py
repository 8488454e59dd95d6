"""Beside the original programs: our client with telemeter-server, and pushes compared with those of telemeter-client.

No package has these programs, so that nobody can be asked to install them: without them the tests are skipped.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamgauge.clock import SystemClock
from streamgauge.testing import requests
from streamgauge.testing.federate_process import FederateProcess
from streamgauge.testing.federation import Peers
from streamgauge.testing.programs import find_program
from streamgauge.testing.server import ServerProcess
from streamgauge.testing.until import until
from streamgauge.wire import metric_family_protobuf, snappy_frames
from streamgauge.wire.metric_family import Metric, MetricFamily

PROGRAMS = ("telemeter-server", "telemeter-client", "authorization-server", "prometheus")
pytestmark = [
    pytest.mark.anyio,
    *(pytest.mark.skipif(find_program(name) is None, reason=f"{name} is not installed") for name in PROGRAMS),
]

LIMIT_BYTES = 2500
"""Of a push, decompressed: less than a scrape here has."""
SERIES = 20
FLAGS = (
    *("--match", '{job="node"}', "--match", '{__name__="ALERTS"}', "--label", "zone=north", "--label", "rack=7"),
    *("--anonymize-labels", "instance,severity", "--anonymize-salt", "salt", "--id", "test", "--to-token", "a"),
)


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


@contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@dataclass
class World:
    """source: URL of a Prometheus whose samples stay as they are. server: the command of a telemeter-server, and its
    URL; it forwards to `store`."""

    source: str
    store: ServerProcess
    server: tuple[str, ...]
    url: str
    written: int  # time of all samples, ms


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("telemeter")
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps([{"token": "a"}]))
    authority, listen = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    now = SystemClock().now_ms()
    with ExitStack() as stack:
        prometheus = stack.enter_context(
            ServerProcess.start_prometheus(folder / "prometheus", "", ["--web.enable-remote-write-receiver"])
        )
        labels = [
            {"__name__": name, "instance": f"host{i}", "job": "node"} for name in ("up", "load") for i in range(SERIES)
        ]
        alert = {"__name__": "ALERTS", "alertname": "Down", "severity": "é", "job": "rules"}
        series = [requests.Series(each, [(now - 1000 * (i % 3), i / 7)]) for i, each in enumerate([*labels, alert])]
        assert prometheus.write(series).status == 204
        store = stack.enter_context(ServerProcess.start(folder / "data"))
        stack.enter_context(running("authorization-server", authority, str(tokens)))
        server = (
            *("telemeter-server", "--listen", listen, "--listen-internal", "127.0.0.1:0"),
            *("--authorize", f"http://{authority}", "--forward-url", f"http://127.0.0.1:{store.port}/api/v1/write"),
            *("--whitelist", '{_id="test"}', "--ratelimit", "20ms", "--limit-bytes", str(LIMIT_BYTES)),
        )
        yield World(f"http://127.0.0.1:{prometheus.port}", store, server, f"http://{listen}", now)


def metric(text: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


async def test_a_real_server_takes_what_we_push_after_an_outage_and_in_pieces(world: World, folder: Path) -> None:
    """It is not there at first. Then it answers 413 to a whole scrape, and 429 to what comes too soon."""
    words = ("--from", world.source, "--to", world.url, "--buffer", str(folder), "--interval", "200ms")
    with await FederateProcess.begin(*words, *FLAGS) as client:
        await until(lambda: metric(client.get("/metrics").text, "federate_buffer_batches") >= 2)
        assert client.get("/healthz/ready").status == 503
        with running(*world.server):
            await until(lambda: metric(client.get("/metrics").text, "federate_pushed_samples_total") >= 2 * SERIES + 1)
            text = client.get("/metrics").text
            sent = client.get("/federate").text
    assert 'metricsclient_http_requests_total{client="federate_to",status_code="413"}' in text
    assert 'federate_lost_samples_total{reason="refused"}' not in text
    assert '_id="test"' in sent
    assert '"host1"' not in sent
    end = SystemClock().now_ms() / 1000 + 60
    found = world.store.query('last_over_time({_id="test"}[10m])', end)
    assert len(found) >= 1
    for series in found:
        assert series["metric"]["zone"] == "north"
        assert series["metric"]["rack"] == "7"


async def first_push(peers: Peers, command: tuple[str, ...]) -> list[MetricFamily]:
    """What a client pushes first of what Prometheus has, and nothing else is changed by."""
    peers.pushes.clear()
    peers.target.requests.clear()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: peers.pushes)
    finally:
        process.kill()
        await process.wait()
    return peers.pushes[0]


def comparable(families: list[MetricFamily]) -> object:
    """What must be equal. The order of labels that are added, and of metrics of one time, is nobody's promise."""

    def key(one: Metric) -> object:
        return one.timestamp, sorted((name, value or "") for name, value in one.labels), one.kind, one.value

    stamps = {family.name: [one.timestamp for one in family.metrics] for family in families}
    return stamps, [(f.name, f.type, f.help, sorted(map(repr, map(key, f.metrics)))) for f in families]


async def test_both_clients_push_the_same(world: World, peers: Peers) -> None:
    url = peers.target.url("")
    flags = ("--from", world.source, "--to", url, *FLAGS)
    theirs = await first_push(peers, ("telemeter-client", "--listen", "", *flags))
    requests_of_theirs = list(peers.target.requests)
    client = await FederateProcess.begin(*flags, "--interval", "100ms", "--buffer", "0")
    peers.pushes.clear()
    peers.target.requests.clear()
    with client:
        await until(lambda: peers.pushes)
        ours = peers.pushes[0]
        await until(lambda: peers.requests("/upload"))
    assert sum(len(family.metrics) for family in theirs) == 2 * SERIES + 1
    assert comparable(ours) == comparable(theirs)

    upload = peers.requests("/upload")[0]
    their_upload = next(request for request in requests_of_theirs if request.target == "/upload")
    for name in ("content-type", "content-encoding"):
        assert upload.headers[name] == their_upload.headers[name]
    authorize = next(request for request in requests_of_theirs if request.target.startswith("/authorize"))
    assert (authorize.target, authorize.headers["authorization"]) == ("/authorize?id=test", "Bearer a")

    content = snappy_frames.decode(their_upload.body, 1 << 20)
    assert metric_family_protobuf.encode(theirs) == content  # byte for byte as Go writes it
