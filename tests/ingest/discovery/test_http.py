"""Targets that a server lists."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import pytest

from streamgauge.clock import ManualClock
from streamgauge.http.client import Resolver
from streamgauge.ingest.discovery.groups import Discovery, Group
from streamgauge.ingest.discovery.http import HttpDiscovery
from streamgauge.ingest.discovery.refresh import Parts, Refresh
from streamgauge.ingest.scrape.job import HttpSource
from streamgauge.stats import Stats
from streamgauge.testing.target import answer, http_target
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

Follow = Callable[[Discovery], list[Sequence[Group]]]
JSON = "application/json; charset=utf-8"


async def test_what_the_server_says_holds_until_it_says_otherwise(
    follow: Follow, clock: ManualClock, stats: Stats, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with http_target() as server:
        server.reply = answer(json.dumps([{"targets": ["a:1"], "labels": {"x": "y"}}]), JSON)
        discovery = HttpDiscovery(HttpSource(server.url("/sd"), 30_000), Resolver(), clock, stats)
        found = follow(discovery)
        await until(lambda: found)
        (group,) = found[0]
        assert (group.targets, group.labels) == (({"__address__": "a:1"},), {"x": "y", "__meta_url": server.url("/sd")})
        headers = server.requests[0].headers
        assert (headers["accept"], headers["x-prometheus-refresh-interval-seconds"]) == ("application/json", "30")
        for reply, words in (
            (answer("[", JSON), "the answer is not valid JSON"),
            (answer(b"\xff", JSON), "the answer is not UTF-8"),
            (answer("[]", "text/html"), 'the answer has content type "text/html" and not application/json'),
            (answer("[]", JSON, "500 Oh no"), "the answer was 500 Oh no"),
            (answer("{}", JSON), "expected a list of target groups"),
        ):
            server.reply = reply
            caplog.clear()
            await clock.advance(30)
            await until(lambda: "the targets found before stay" in caplog.text)
            assert words in caplog.text
            server.reply = answer(json.dumps([{"targets": ["a:1"], "labels": {"x": "y"}}]), JSON)
            await clock.advance(30)
            await until(lambda: "works again" in caplog.text)
        assert len(found) == 1
        server.reply = answer("[]", JSON)
        await clock.advance(30)
        await until(lambda: len(found) == 2)
        assert found[1] == []
        assert b'streamgauge_discovery_failures_total{kind="http"} 5.0' in stats.exposition()


async def test_a_mistake_of_ours_is_not_the_end(clock: ManualClock, stats: Stats, follow: Follow) -> None:
    asked = 0

    async def ask() -> Parts:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ZeroDivisionError
        return Parts({"": [Group("g", (), {})]})

    found = follow(Refresh(ask, 1000, "http", "n", clock, stats))
    await until(lambda: asked == 1)
    await clock.advance(1)
    await until(lambda: found)
    assert b'streamgauge_discovery_failures_total{kind="http"} 1.0' in stats.exposition()


async def test_the_log_has_neither_password_nor_parameters(
    follow: Follow, clock: ManualClock, stats: Stats, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_target() as server:
        server.reply = answer("[", JSON)
        url = f"http://u:sesame@{server.address}/sd?token=sesame"
        follow(HttpDiscovery(HttpSource(url, 30_000), Resolver(), clock, stats))
        await until(lambda: "the targets found before stay" in caplog.text)
        assert f"http discovery, {server.url('/sd')}?token=…: " in caplog.text
        assert "sesame" not in caplog.text
        assert server.requests[0].headers["authorization"] == "Basic dTpzZXNhbWU="


async def test_no_label_has_the_password(follow: Follow, clock: ManualClock, stats: Stats) -> None:
    async with http_target() as server:
        server.reply = answer('[{"targets": ["a:1"]}]', JSON)
        found = follow(
            HttpDiscovery(HttpSource(f"http://u:sesame@{server.address}/sd?x=y", 1), Resolver(), clock, stats)
        )
        await until(lambda: found)
        assert found[0][0].labels == {"__meta_url": f"http://{server.address}/sd?x=y"}
