"""What is said of targets over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.discovery.static import StaticDiscovery
from streamgauge.ingest.scrape.job import ScrapeJob
from streamgauge.ingest.scrape.manager import ScrapeManager
from streamgauge.ingest.scrape.pool import ScrapePool
from streamgauge.ingest.turns import Turns
from streamgauge.relabel import Action, Rule
from streamgauge.serve.targets_api import MAX_METADATA, selector
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.target import HttpTarget, answer, http_target
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def target() -> AsyncIterator[HttpTarget]:
    async with http_target() as serving:
        serving.reply = answer("# HELP a Some text.\n# TYPE a counter\na 1\n# HELP b Other text.\nb 1\n")
        yield serving


@pytest.fixture
async def pools(served, clock, target: HttpTarget) -> AsyncIterator[dict[str, ScrapePool]]:
    """One target that is up, one that is down, one that is dropped, one that is none; two jobs."""
    group = Group("g", ({ADDRESS: target.address}, {ADDRESS: "drop:1", "x": "y"}), {"zone": "a"})
    rule = Rule(Action.DROP, (ADDRESS,), regex="drop.*")
    jobs = (
        ScrapeJob("one", interval=15_000, relabel=(rule,), static=(group,)),
        ScrapeJob("two", static=(Group("g", ({ADDRESS: "127.0.0.1:1"}, {ADDRESS: "http://x"}), {}),)),
    )
    manager = ScrapeManager(
        MemorySink(), Stats(), clock, Turns(), "seed", 1 << 22, lambda job, resolver: [StaticDiscovery(job.static)]
    )
    manager.apply(jobs)
    running = asyncio.create_task(manager.run())

    def loops():
        return [loop for pool in manager.pools.values() for loop in pool.loops]

    await until(lambda: len(loops()) == 2 and all(loop.next_due for loop in loops()))
    await clock.advance(60)
    await until(lambda: all(loop.scraper.report.started for loop in loops()))
    served.services.pools = manager.pools
    yield manager.pools
    running.cancel()


async def get(served, path: str, status: int = 200):
    response = await served.http.get(f"/api/v1/{path}")
    assert response.status_code == status
    return response.json()["data"] if status == 200 else response.json()["error"]


async def test_targets(served, pools, target: HttpTarget):
    data = await get(served, "targets")
    up, down = data["activeTargets"]
    assert up["labels"] == {"job": "one", "instance": target.address, "zone": "a"}
    assert up["discoveredLabels"][ADDRESS] == target.address
    assert up["scrapePool"] == "one"
    assert up["scrapeUrl"] == up["globalUrl"] == target.url()
    assert (up["health"], up["lastError"]) == ("up", "")
    assert (up["scrapeInterval"], up["scrapeTimeout"]) == ("15s", "10s")
    assert up["lastScrape"].startswith("2023-11-14T22:1")
    assert (down["health"], down["lastError"]) == ("down", "connecting to 127.0.0.1:1: connection refused")
    (dropped,) = data["droppedTargets"]
    assert dropped["discoveredLabels"]["x"] == "y"
    assert dropped["scrapePool"] == "one"
    assert data["droppedTargetCounts"] == {"one": 1, "two": 0}
    assert data["invalidTargets"] == [
        {"scrapePool": "two", "error": 'g: http://x: "http://x" is no address; write host:port'}
    ]


async def test_a_scrape_that_does_not_end_is_told_of(served, pools, target: HttpTarget, clock):
    target.reply = lambda request: None
    (loop,) = pools["one"].loops
    asked = len(target.requests)
    await clock.advance((loop.next_due - clock.now_ms()) / 1000)
    await until(lambda: len(target.requests) > asked)
    await clock.advance(10)  # its timeout
    assert (await get(served, "targets"))["activeTargets"][0]["lastError"] == ""
    await clock.advance(2)
    said = (await get(served, "targets"))["activeTargets"][0]["lastError"]
    assert said.startswith("being scraped for 12 s, and not done: ")


async def test_some_targets(served, pools):
    active = await get(served, "targets?state=active&scrapePool=two")
    assert [one["scrapePool"] for one in active["activeTargets"]] == ["two"]
    assert active["droppedTargets"] == []
    dropped = await get(served, "targets?state=dropped")
    assert (len(dropped["activeTargets"]), len(dropped["droppedTargets"])) == (0, 1)
    assert "invalidTargets" not in dropped
    assert "is not one of active, dropped, any" in await get(served, "targets?state=up", 400)


async def test_pools(served, pools):
    assert await get(served, "scrape_pools") == {"scrapePools": ["one", "two"]}


async def test_metadata_without_end_is_refused(served, pools, target: HttpTarget, clock):
    lines = "".join(f"# TYPE m{number} gauge\n" for number in range(MAX_METADATA + 1))
    target.reply = answer(lines)
    (loop,) = pools["one"].loops
    before = loop.scraper.report.started
    await clock.advance(15)
    await until(lambda: loop.scraper.report.started > before)
    assert f"more than {MAX_METADATA} entries; ask for fewer" in await get(served, "targets/metadata", 422)
    (one,) = await get(served, "targets/metadata?metric=m7")
    assert one["type"] == "gauge"
    assert len(await get(served, "targets/metadata?limit=3")) == 3
    assert await get(served, "targets/metadata?limit=0") == []


def test_names_of_labels_may_be_quoted():
    matches = selector(r'{"\"x\""="1","job"="j"}')
    assert matches({'"x"': "1", "job": "j"})
    assert not matches({"x": "1", "job": "j"})


async def test_metadata(served, pools, target: HttpTarget):
    labels = {"job": "one", "instance": target.address, "zone": "a"}
    everything = await get(served, "targets/metadata")
    assert everything == [
        {"target": labels, "metric": "a", "type": "counter", "help": "Some text.", "unit": ""},
        {"target": labels, "metric": "b", "type": "unknown", "help": "Other text.", "unit": ""},
    ]
    assert await get(served, "targets/metadata?limit=1") == everything[:1]
    (one,) = await get(served, "targets/metadata?metric=b")
    assert "metric" not in one
    for text, matches in (
        ('{job="one"}', True),
        ('{ job = "one", zone!="b", }', True),
        ('{job=~"o.*",zone!~"b|c"}', True),
        ("{}", True),
        ('{job="two"}', False),
        ('{zone=~"."}', True),
        ('{zone!~"a"}', False),
        ('{absent=""}', True),
        ('{"job"="one"}', True),
        (r'{"\"x\""=""}', True),
    ):
        found = await get(served, f"targets/metadata?match_target={text}")
        assert (found == everything) == matches, text
    for wrong, words in (
        ("job", "expected matchers in braces"),
        ("{job}", 'expected name="value" at'),
        ('{a=~"("}', "bad"),
    ):
        assert words in await get(served, f"targets/metadata?match_target={wrong}", 400)
    assert "limit must be a number" in await get(served, "targets/metadata?limit=x", 400)
