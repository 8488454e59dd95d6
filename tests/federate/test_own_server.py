"""The client with our own server: what it pushed before, during and after an outage is what is stored."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamgauge.clock import SystemClock
from streamgauge.federate.transforms import Transforms
from streamgauge.testing.federate_process import FederateProcess
from streamgauge.testing.federation import Peers, samples, status
from streamgauge.testing.server import ServerProcess, eventually
from streamgauge.testing.target import Request
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

SCRAPED = 'metricsclient_http_requests_total{{client="federate_from",status_code="{}"}}'
TOKEN = "a token of sufficient length for anybody to guess"


def configuration(folder: Path) -> Path:
    (folder / "token").write_text(TOKEN)
    section = {
        "whitelist": ["up"],
        "ratelimit": "50ms",
        "push-tokens": [{"name": "east", "file": str(folder / "token"), "clusters": ["east"]}],
    }
    file = folder / "streamgauge.yml"
    file.write_text(json.dumps({"federation": section}))
    return file


async def test_an_outage_leaves_no_gap(peers: Peers, folder: Path, tmp_path: Path) -> None:
    given: dict[int, float] = {}

    def reply(request: Request) -> bytes | None:
        now = SystemClock().now_ms()
        peers.families = samples(now, labels=(("instance", "host1"), ("job", "node")))
        given[now] = float(peers.families[0].metrics[0].value or 0)  # type: ignore[arg-type]
        return peers.reply(request)

    peers.target.reply = reply
    config = str(configuration(tmp_path))
    server = await asyncio.to_thread(ServerProcess.start, tmp_path / "data", ["--config", config])
    words = ["--from", peers.target.url(""), "--to", f"http://127.0.0.1:{server.port}", "--id", "east"]
    words += ["--to-token", TOKEN, "--interval", "1s", "--buffer", str(folder)]
    words += ["--anonymize-labels", "instance", "--anonymize-salt", "salt"]
    with await FederateProcess.begin(*words) as client:

        async def has_pushed(number: int) -> None:
            pushed = "federate_pushed_samples_total"
            await asyncio.to_thread(eventually, lambda: client.metric(pushed) >= number)

        await has_pushed(2)
        server.kill()
        outage = len(given)
        await until(lambda: len(given) >= outage + 3)
        await asyncio.to_thread(eventually, lambda: client.metric("federate_buffer_batches") >= 2)
        listen = ["--config", config, "--listen", f"127.0.0.1:{server.port}"]
        with await asyncio.to_thread(ServerProcess.start, tmp_path / "data", listen) as again:
            assert (await asyncio.to_thread(client.request, "POST", "/-/reload")).status == 200  # no more pauses
            await asyncio.to_thread(eventually, lambda: client.get("/healthz/ready").status == 200)
            peers.scrape = [status("503 Service Unavailable")] * 10_000  # so that there is an end
            await asyncio.to_thread(eventually, lambda: SCRAPED.format(503) in client.get("/metrics").text)
            await asyncio.to_thread(eventually, lambda: client.metric("federate_buffer_batches") == 0)
            scraped = await asyncio.to_thread(client.metric, SCRAPED.format(200))
            await asyncio.to_thread(client.stop)
            instance = Transforms(salt="salt").hashed("host1")
            selector = f'up{{_id="east",instance="{instance}",job="node"}}'
            found = await asyncio.to_thread(again.samples, selector, SystemClock().now_ms() / 1000 + 1)
            everything = await asyncio.to_thread(again.query, 'count({_id="east"})')
            assert everything[0]["value"][1] == "1"
    stored = {at: float(value) for at, value in found}
    assert stored == {at: given[at] for at in stored}
    assert len(stored) == scraped
