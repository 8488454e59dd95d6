"""Sending samples on to real servers, which then have every sample; and what kills of either side cost: nothing."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge.testing.requests import STALE, V2, Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually

Samples = set[tuple[frozenset[tuple[str, str]], int, float]]
QUIET = "--no-self-monitoring"
SELECTOR = '{__name__=~"m_.+"}'


def samples_of(server: ServerProcess, end: float) -> Samples:
    """All samples of an hour as its API has them."""
    return {
        (frozenset(series["metric"].items()), round(at * 1000), float(value))
        for series in server.query(f"{SELECTOR}[1h]", end)
        for at, value in series["values"]
    }


def exported(url: str) -> Samples:
    """All samples of a VictoriaMetrics. A stale marker comes as null."""
    query = urllib.parse.urlencode({"match[]": SELECTOR, "reduce_mem_usage": 1})
    with urllib.request.urlopen(f"{url}/api/v1/export?{query}", timeout=SECONDS) as answer:
        lines = [json.loads(line) for line in answer.read().splitlines()]
    return {
        (frozenset(line["metric"].items()), at, float(value))
        for line in lines
        for at, value in zip(line["timestamps"], line["values"], strict=True)
        if value is not None and not math.isnan(float(value))
    }


def round_of(now: int, number: int) -> list[Series]:
    """A scrape of 40 series, of which one ends."""
    return [
        Series(
            {"__name__": f"m_{at % 4}", "at": str(at), "odd": "é" * (at % 3)},
            [(now + 1000 * number, STALE if number == 7 and at == 5 else number + at / 8)],
        )
        for at in range(40)
        if number <= 7 or at != 5
    ]


def with_cluster(samples: Samples) -> Samples:
    return {(labels | {("cluster", "home")}, at, value) for labels, at, value in samples}


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[str]:
    """The URL of a VictoriaMetrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["victoria-metrics", f"-storageDataPath={tmp_path / 'victoria'}", f"-httpListenAddr={address}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            eventually(lambda: running.poll() is None and _answers(f"http://{address}/health"))
            yield f"http://{address}"
        finally:
            running.terminate()


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=SECONDS):
        return True
    return False


@pytest.mark.peer("prometheus", "victoria-metrics")
def test_three_kinds_of_servers_have_every_sample(tmp_path: Path, victoria: str) -> None:
    with (
        ServerProcess.start_prometheus(
            tmp_path / "p", "global: {}\n", ["--web.enable-remote-write-receiver"]
        ) as prometheus,
        ServerProcess.start(tmp_path / "ours", [QUIET]) as ours,
    ):
        config = tmp_path / "c.yml"
        queue = "queue_config: {batch_send_deadline: 50ms, max_samples_per_send: 100}"
        config.write_text(
            "global: {external_labels: {cluster: home}}\nremote_write:\n"
            f"- {{url: '{prometheus.url}/api/v1/write', {queue}}}\n"
            f"- {{url: '{victoria}/api/v1/write', {queue}}}\n"
            f"- {{url: '{ours.url}/api/v1/write', protobuf_message: {V2}, {queue}}}\n"
        )
        with ServerProcess.start(tmp_path / "sender", [QUIET, "--config", str(config)]) as sender:
            for _ in range(3):
                sender.await_line("from now on")
            now = int(time.time() * 1000) - 20_000
            for number in range(12):
                assert sender.write(round_of(now, number)).status == 204
            end = now / 1000 + 20
            wanted = with_cluster(samples_of(sender, end))
            assert len(wanted) == 12 * 40 - 5
            eventually(lambda: samples_of(prometheus, end) == wanted)
            eventually(lambda: samples_of(ours, end) == wanted)
            eventually(lambda: exported(victoria) == wanted)
            assert sender.metric_sum("streamgauge_remote_write_samples_failed_total") == 0
            assert ours.query('count(timestamp(m_1{at="5"}))', now / 1000 + 7) == [], "the marker has come"
            assert sender.stop() == 0


def test_kills_of_both_sides_lose_nothing(tmp_path: Path) -> None:
    """Each is killed right after a write was acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "c.yml"
    config.write_text(
        f"remote_write: [{{url: 'http://127.0.0.1:{port}/api/v1/write', protobuf_message: {V2}, "
        "queue_config: {batch_send_deadline: 20ms, max_backoff: 200ms}}]\n"
    )

    def start_receiver() -> ServerProcess:
        return ServerProcess.start(tmp_path / "receiver", [QUIET, "--listen", f"127.0.0.1:{port}"])

    def start_sender() -> ServerProcess:
        return ServerProcess.start(tmp_path / "sender", [QUIET, "--config", str(config)])

    now = int(time.time() * 1000) - 100_000
    end = now / 1000 + 60
    with start_receiver() as receiver, start_sender() as sender:
        sender.await_line("from now on")
        for number in range(10):
            assert sender.write(round_of(now, number)).status == 204
            if number == 7:
                receiver.kill()
    with start_sender() as sender:
        for number in range(10, 20):
            assert sender.write(round_of(now, number)).status == 204
        with start_receiver() as receiver:
            wanted = samples_of(sender, end)
            assert len({at for _, at, _ in wanted}) == 20
            eventually(lambda: samples_of(receiver, end) == wanted)
