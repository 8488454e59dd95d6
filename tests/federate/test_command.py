"""`streamgauge federate` as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamgauge.clock import SystemClock
from streamgauge.testing.federate_process import FederateProcess
from streamgauge.testing.federation import PROTOBUF, Peers, samples, status
from streamgauge.testing.server import run_command
from streamgauge.testing.target import Request, answer
from streamgauge.testing.until import until
from streamgauge.wire import metric_family_protobuf
from streamgauge.wire.metric_family import Metric, MetricFamily, MetricType

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")]


def arguments(peers: Peers, folder: Path, *more: str) -> list[str]:
    url = peers.target.url("")
    words = ["--from", url, "--to", url, "--to-token", "secret", "--buffer", str(folder), "--interval", "100ms"]
    return [*words, *more]


def ticking(peers: Peers) -> Callable[[Request], bytes | None]:
    """Each scrape gives a sample of its own time."""

    def reply(request: Request) -> bytes | None:
        peers.families = samples(SystemClock().now_ms())
        return peers.reply(request)

    return reply


def stamps(pushes: list[list[MetricFamily]]) -> set[int | None]:
    return {metric.timestamp for push in pushes for family in push for metric in family.metrics}


async def test_a_kill_in_an_outage_loses_no_scrape(peers: Peers, folder: Path) -> None:
    peers.target.reply = ticking(peers)
    peers.uploads = [status("503 Service Unavailable")] * 1000
    with await FederateProcess.begin(*arguments(peers, folder)) as client:
        await until(lambda: len(stamps(peers.pushes)) >= 5)
        client.kill()
    tried = stamps(peers.pushes)
    peers.uploads = []
    with await FederateProcess.begin(*arguments(peers, folder)) as client:
        await until(lambda: tried <= stamps(peers.taken))
        await asyncio.to_thread(client.stop)
        assert client.process.returncode == 0


async def test_sighup_reads_the_file_and_keeps_going_with_a_bad_one(peers: Peers, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "federate.yml"
    file.write_text("label: {zone: north}")
    peers.target.reply = ticking(peers)

    def zone() -> str | None:
        return dict(peers.taken[-1][0].metrics[-1].labels).get("zone") if peers.taken else None

    with await FederateProcess.begin(*arguments(peers, folder, "--config", str(file))) as client:
        await until(lambda: zone() == "north")
        file.write_text("label: [novalue]")
        client.signal(signal.SIGHUP)
        await asyncio.to_thread(client.await_line, "the configuration stays as it was: --label novalue")
        taken = len(peers.taken)
        await until(lambda: len(peers.taken) > taken)
        assert zone() == "north"
        file.write_text("label: {zone: south}")
        client.signal(signal.SIGHUP)
        await until(lambda: zone() == "south")
        assert client.process.poll() is None
        [scrapes] = [
            line
            for line in (await asyncio.to_thread(client.get, "/metrics")).text.splitlines()
            if line.startswith("federate_reload_failures_total ")
        ]
        assert scrapes == "federate_reload_failures_total 1"


async def test_it_is_light(peers: Peers, folder: Path) -> None:
    """What it imports has no store and no query engine."""
    program = (
        "import sys, streamgauge.commands.federate; "
        "print(*sorted({'.'.join(n.split('.')[:2]) for n in sys.modules if n.startswith('streamgauge.')}))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    found = set((await process.communicate())[0].decode().split())
    parts = {name.removeprefix("streamgauge.") for name in found}
    assert not parts & {"store", "query", "serve", "ingest", "live", "auth", "main", "services", "config"}


# ---- the report -----------------------------------------------------------------------------------------------------


def scraped(peers: Peers) -> None:
    now = SystemClock().now_ms()
    hosts = tuple(
        Metric((("instance", f"host{i}:9100"), ("job", "node")), MetricType.UNTYPED, 1.0, now) for i in range(3)
    )
    old = (Metric((("job", "x"),), MetricType.UNTYPED, 1.0, 5),)
    families = [
        MetricFamily("up", MetricType.UNTYPED, hosts),
        MetricFamily("ALERTS", MetricType.UNTYPED, hosts[:1]),
        MetricFamily("stale", MetricType.UNTYPED, old),
    ]
    peers.scrape = [answer(metric_family_protobuf.encode(families), PROTOBUF)]


async def dry_run(peers: Peers, *more: str) -> Any:
    scraped(peers)
    url = peers.target.url("")
    words = ["--from", url, "--to", url, "--to-token-file", "not-there-yet", "--anonymize-labels", "instance,node"]
    words += ["--anonymize-salt", "salt", *more]
    done = await asyncio.to_thread(run_command, "federate", "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    assert [request.target.partition("?")[0] for request in peers.target.requests] == ["/federate"]
    assert "host0" not in done.stdout
    return done.stdout


async def test_the_report_says_label_by_label_what_would_leave(peers: Peers) -> None:
    text = await dry_run(peers)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert any(row.startswith("instance 3 yes ") and row.endswith("alerts, up") for row in rows)
    assert "job 1 no node alerts, up" in rows
    assert "stale 1 it is older than 24 hours" in rows
    assert "Label node is to be anonymised, and no series has it." in rows
    assert "Metric ALERTS is renamed to alerts." in rows
    assert "Nothing was sent." in text


async def test_the_report_for_programs(peers: Peers) -> None:
    report = json.loads(await dry_run(peers, "--format", "json", "--label", "zone=north"))
    labels = {label.pop("name"): label for label in report["labels"]}
    assert labels["job"] == {
        "distinct_values": 1,
        "anonymised": False,
        "set_here": False,
        "examples": ["node"],
        "metrics": ["alerts", "up"],
    }
    assert labels["instance"]["distinct_values"] == 3
    assert labels["instance"]["anonymised"]
    assert all(len(value) == 12 for value in labels["instance"]["examples"])
    assert labels["zone"]["set_here"]
    assert report["metrics"] == {"alerts": 1, "up": 3}
    assert report["removed"] == [{"metric": "stale", "count": 1, "reason": "it is older than 24 hours"}]
    assert report["scraped"]["series"] == 5
    assert report["pushed"]["series"] == 4
    assert report["renamed"] == {"ALERTS": "alerts"}


# ---- a start that cannot succeed ------------------------------------------------------------------------------------


async def test_starts_that_cannot_succeed(peers: Peers, folder: Path) -> None:
    done = await asyncio.to_thread(run_command, "federate", "--from", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("--to is missing")) == (2, 1)
    taken = peers.target.address
    done = await asyncio.to_thread(run_command, "federate", *arguments(peers, folder), "--listen", taken)
    assert done.returncode == 1
    assert f"--listen {taken}: address already in use" in done.stderr
    assert not peers.target.requests
