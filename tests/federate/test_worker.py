"""The client between a Prometheus and a server that do what they should, and what they should not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamgauge.clock import ManualClock
from streamgauge.federate.batch import Batch
from streamgauge.federate.buffer import Buffer, DiskBuffer, LatestBuffer
from streamgauge.federate.config import FederateConfig
from streamgauge.federate.worker import Worker
from streamgauge.testing.federation import NOW, PROTOBUF, Peers, grant, samples, status
from streamgauge.testing.target import answer
from streamgauge.testing.until import until
from streamgauge.wire import metric_family_protobuf
from streamgauge.wire.metric_family import Metric, MetricFamily, MetricType

pytestmark = pytest.mark.anyio

LARGE = 1 << 30


def lowest(low: float, high: float) -> float:
    return low


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@asynccontextmanager
async def running(
    config: FederateConfig, buffer: Buffer, clock: ManualClock, draw: object = lowest
) -> AsyncIterator[Worker]:
    worker = Worker(config, buffer, clock, draw)  # type: ignore[arg-type]
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.wait([task])
        buffer.close()


async def advance(clock: ManualClock, seconds: float) -> None:
    """Let time pass, once the tasks that are about to sleep do."""
    for _ in range(10):
        await asyncio.sleep(0)
    await clock.advance(seconds)


async def paused(peers: Peers, clock: ManualClock, pushes: int = 1) -> None:
    """Until so many pushes have failed, and the next one waits for time to pass, as the next scrape does."""
    await until(lambda: len(peers.pushes) == pushes and clock.sleepers >= 2)


async def next_scrape(peers: Peers, clock: ManualClock, seconds: float = 100) -> None:
    """Let a scrape come that gives a sample of the present moment."""
    before = len(peers.requests("/federate"))
    peers.families = samples(clock.now_ms() + round(seconds * 1000))
    await advance(clock, seconds)
    await until(lambda: len(peers.requests("/federate")) > before)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


# ---- the usual ------------------------------------------------------------------------------------------------------


async def test_a_scrape_is_pushed_with_the_labels_of_the_server(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.families = samples(NOW, labels=(("i", "host1"), ("_id", "forged")))
    config = peers.config(anonymize_labels="i", anonymize_salt="salt", match="up", from_token="read")
    async with running(config, DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: peers.taken and not worker.metrics.buffer.waiting)
        [[family]] = peers.taken
        assert family.metrics[0].labels == (("i", "Mf5nfIpj-nAq"), ("_id", "c 1"))
        assert worker.sent == (family,)
        await until(lambda: worker.status.problems() == [])
        assert worker.metrics.pushed == 1
    [scrape], [authorize], [upload] = map(peers.requests, ("/federate", "/authorize", "/upload"))
    assert (scrape.target, scrape.headers["authorization"]) == ("/federate?match%5B%5D=up", "Bearer read")
    assert scrape.headers["accept"].startswith(PROTOBUF)
    assert (authorize.target, authorize.body) == ("/authorize?id=c+1", b"")
    assert authorize.headers["authorization"] == "Bearer secret"
    assert upload.headers["authorization"] == "Bearer token-1"
    assert (upload.headers["content-type"], upload.headers["content-encoding"]) == (PROTOBUF, "snappy")


async def test_the_log_says_when_a_server_takes_pushes_again(
    peers: Peers, folder: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamgauge.federate")
    peers.grants = [status("401 Unauthorized")]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.status.push)
        await advance(clock, 1)
        await until(lambda: worker.status.push == "")
        await next_scrape(peers, clock)
        await until(lambda: len(peers.taken) == 2)
    said = [record.getMessage() for record in caplog.records]
    assert ["401" in said[0], *said[1:]] == [True, "pushed; the server takes it"]


async def test_the_first_scrape_waits_a_random_time_and_no_interval_is_shorter(
    peers: Peers, folder: Path, clock: ManualClock
) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 2

    async with running(peers.config(), DiskBuffer(folder, LARGE), clock, draw):
        await until(lambda: drawn)
        assert drawn == [(0, 100)]
        await advance(clock, 49.9)
        assert not peers.target.requests
        await advance(clock, 0.1)
        await until(lambda: len(peers.taken) == 1)
        await advance(clock, 99.9)
        assert len(peers.requests("/federate")) == 1
        await advance(clock, 0.1)
        await until(lambda: len(peers.taken) == 2)


async def test_nothing_to_push_is_no_failure(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.families = samples(NOW - 2 * 86_400_000)
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.status.scrape == "")
        assert worker.status.problems() == []
        assert (worker.metrics.scraped, worker.metrics.removed) == (1, 1)
        assert (worker.metrics.requests, worker.metrics.failed) == (1, 0)
    assert not peers.requests("/upload")


async def test_text_is_read_too(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.scrape = [answer(f'up{{a="b"}} 1 {NOW}\n')]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock):
        await until(lambda: peers.taken)
    assert peers.taken[0][0].metrics[0] == Metric((("a", "b"), ("_id", "c 1")), MetricType.UNTYPED, 1.0, NOW)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (status("503 Service Unavailable"), "answered 503"),
        (answer(b"\x05nope", PROTOBUF), "cannot be read"),
        (answer("up{", "text/plain"), "cannot be read"),
        (answer("a 1\n" * 60_000), "204800 bytes"),
    ],
)
async def test_a_scrape_that_fails_is_tried_again_soon(
    reply: bytes, said: str, peers: Peers, folder: Path, clock: ManualClock
) -> None:
    peers.scrape = [reply, reply]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.status.scrape)
        assert said in worker.status.problems()[0]
        await advance(clock, 0.5)
        await until(lambda: worker.metrics.failed == 2)
        await advance(clock, 1)
        await until(lambda: peers.taken)
        assert worker.status.scrape == ""
        assert worker.metrics.requests == 3
        await advance(clock, 99)
        assert len(peers.requests("/federate")) == 3
        await advance(clock, 1)
        await until(lambda: len(peers.taken) == 2)


# ---- the server is away ---------------------------------------------------------------------------------------------


async def test_an_outage_loses_nothing_and_ends_in_a_push_of_several_scrapes(
    peers: Peers, folder: Path, clock: ManualClock
) -> None:
    peers.uploads = [status("502 Bad Gateway")] * 1000
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await paused(peers, clock)
        for number in range(2, 6):
            await next_scrape(peers, clock)
            await until(lambda number=number: len(worker.metrics.buffer.waiting) == number)
        assert "502" in worker.status.problems()[0]
        assert not peers.taken
        peers.uploads = []
        await advance(clock, 300)
        await until(lambda: not worker.metrics.buffer.waiting)
    assert sorted(time or 0 for push in peers.times() for time in push)[:5] == [NOW + n * 100_000 for n in range(5)]
    assert peers.times()[0][0] == NOW
    assert len(peers.times()[0]) >= 3


async def test_pauses_double_and_are_random(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("500 Internal Server Error")] * 4
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    async with running(peers.config(), DiskBuffer(folder, LARGE), clock, draw):
        for number, pause in enumerate((0.5, 1, 2, 4), 1):
            await until(lambda number=number: len(drawn) == 1 + number)
            await advance(clock, pause)
        await until(lambda: peers.taken)
    assert drawn == [(0, 100), (0.5, 1), (1, 2), (2, 4), (4, 8)]


async def test_what_waits_is_pushed_by_the_next_start(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("503 Service Unavailable")] * 1000
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.metrics.buffer.waiting and peers.pushes)
    peers.uploads, peers.families = [], samples(NOW + 5000)
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock):
        await until(lambda: [time for push in peers.times() for time in push] == [NOW, NOW + 5000])


async def test_a_scrape_does_not_wait_for_a_server_that_is_silent(
    peers: Peers, folder: Path, clock: ManualClock
) -> None:
    peers.uploads = [None]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: peers.pushes)
        await next_scrape(peers, clock)
        await until(lambda: len(worker.metrics.buffer.waiting) == 2)


async def test_a_push_stays_below_the_limit(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("503 Service Unavailable")]
    buffer = DiskBuffer(folder, LARGE)
    async with running(peers.config(limit_bytes="150"), buffer, clock) as worker:
        await paused(peers, clock)
        for _ in range(4):
            await next_scrape(peers, clock)
        await until(lambda: sum(map(len, peers.times())) == 5 and not worker.metrics.buffer.waiting)
        sizes = [len(push) for push in peers.times()]
        assert sum(sizes) == 5
        assert max(sizes) <= 3


async def test_the_log_warns_once_where_no_two_scrapes_fit_into_a_push(
    peers: Peers, folder: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(metric_family_protobuf.encode(samples(NOW)))
    for limit, warnings in ((2 * size, 0), (2 * size - 1, 1)):
        caplog.clear()
        async with running(peers.config(limit_bytes=str(limit)), LatestBuffer(), clock):
            for _ in range(2):
                await next_scrape(peers, clock)
        assert caplog.text.count("more than half of --limit-bytes") == warnings


async def test_what_is_too_old_is_dropped_and_counted(peers: Peers, folder: Path, clock: ManualClock) -> None:
    old = NOW - 86_400_000 + 61_000
    peers.families = [*samples(old), *samples(NOW, name="down")]
    peers.uploads = [status("503 Service Unavailable")]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await paused(peers, clock)
        clock.jump(2_000)
        await advance(clock, 0.5)
        await until(lambda: peers.taken)
        assert peers.times() == [[NOW]]
        await until(lambda: worker.metrics.buffer.lost["old"] == 1)


async def test_a_whole_batch_that_is_too_old_is_not_pushed(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("503 Service Unavailable")]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await paused(peers, clock)
        clock.jump(86_400_000)
        await advance(clock, 0.5)
        await until(lambda: not worker.metrics.buffer.waiting)
        assert worker.metrics.buffer.lost["old"] == 1
    assert not peers.taken


async def test_without_a_buffer_the_latest_scrape_is_pushed(peers: Peers, clock: ManualClock) -> None:
    peers.uploads = [status("503 Service Unavailable")] * 1000
    async with running(peers.config(buffer="0"), LatestBuffer(), clock) as worker:
        await until(lambda: peers.pushes)
        await next_scrape(peers, clock)
        await until(lambda: worker.metrics.buffer.lost["replaced"] == 1)
        peers.uploads = []
        await advance(clock, 90)
        await until(lambda: [NOW + 100_000] in peers.times())


# ---- access tokens --------------------------------------------------------------------------------------------------


async def test_401_gets_a_new_token_and_labels_and_is_sent_again_at_once(
    peers: Peers, folder: Path, clock: ManualClock
) -> None:
    peers.uploads = [status("401 Unauthorized")]
    peers.grants = [grant("old", _id="old"), grant("new", _id="new")]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: peers.taken)
        assert worker.metrics.failed == 0
    assert [request.headers["authorization"] for request in peers.requests("/upload")] == ["Bearer old", "Bearer new"]
    assert dict(peers.taken[0][0].metrics[0].labels)["_id"] == "new"


async def test_401_twice_waits(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("401 Unauthorized")] * 2
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.status.push)
        assert (len(peers.pushes), peers.granted) == (2, 2)
        await advance(clock, 0.5)
        await until(lambda: peers.taken)
        assert peers.granted == 3


@pytest.mark.parametrize(("seconds", "good_for"), [(86_400, 86_385), (60, 45), (20, 15), (4, 3)])
async def test_tokens_are_renewed_before_they_expire(
    seconds: int, good_for: float, peers: Peers, folder: Path, clock: ManualClock
) -> None:
    peers.grants = [grant("first", seconds, _id="1"), grant("second", seconds, _id="2")]
    buffer = DiskBuffer(folder, LARGE)
    async with running(peers.config(interval="1s"), buffer, clock) as worker:
        await until(lambda: len(peers.taken) == 1 and not buffer.waiting)
        worker.reconfigure(peers.config(interval=f"{good_for - 0.001:.3f}".replace(".", "s") + "ms"))
        await until(lambda: len(peers.taken) == 2 and not buffer.waiting)
        assert peers.granted == 2  # a reload asks anew
        await next_scrape(peers, clock, good_for - 0.001)
        await until(lambda: len(peers.taken) == 3 and not buffer.waiting)
        assert peers.granted == 2
        await next_scrape(peers, clock, good_for - 0.001)
        await until(lambda: len(peers.taken) == 4)
        assert peers.granted == 3


async def test_a_refused_token_is_told_and_tried_again(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.grants = [status("401 Unauthorized"), status("429 Too Many Requests", {"retry-after": "300"})]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.status.push)
        assert "no access token" in worker.status.problems()[0]
        assert "secret" not in worker.status.problems()[0]
        await advance(clock, 0.5)
        await until(lambda: peers.granted == 2)
        await until(lambda: "429" in (worker.status.push or ""))
        await advance(clock, 299)
        assert peers.granted == 2
        await advance(clock, 1)
        await until(lambda: peers.taken)


# ---- refusals -------------------------------------------------------------------------------------------------------


async def test_after_429_it_waits_as_long_as_is_asked(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("429 Too Many Requests", {"retry-after": "40"})]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.metrics.failed == 1)
        await advance(clock, 39)
        assert len(peers.pushes) == 1
        await advance(clock, 1)
        await until(lambda: peers.taken)


async def test_429_is_no_fault_until_it_lasts(peers: Peers, folder: Path, clock: ManualClock) -> None:
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: peers.taken)
        peers.uploads = [status("429 Too Many Requests")] * 1000
        await next_scrape(peers, clock)
        await until(lambda: worker.metrics.failed)
        assert worker.status.problems() == []
        for _ in range(2):
            await next_scrape(peers, clock)
        await advance(clock, 40)
        await until(lambda: "429" in "".join(worker.status.problems()))


async def test_413_makes_pushes_smaller_until_they_pass(peers: Peers, folder: Path, clock: ManualClock) -> None:
    metrics = tuple(Metric((("i", str(i)),), MetricType.UNTYPED, 1.0, NOW + i) for i in range(16))
    peers.families = [MetricFamily("up", MetricType.UNTYPED, metrics)]
    peers.uploads = [status("413 Request Entity Too Large")] * 2
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        for failed in (1, 2):
            await until(lambda failed=failed: worker.metrics.failed == failed)
            await advance(clock, 1)
        await until(lambda: not worker.metrics.buffer.waiting)
    assert sorted(time or 0 for push in peers.times() for time in push) == [NOW + i for i in range(16)]
    parts = [request.headers.get("x-streamgauge-part") for request in peers.requests("/upload")]
    assert parts[:2] == [None, "first"]  # the first quarter of it passes
    assert parts[2:] == ["first", *["middle"] * (len(parts) - 4), "last"]
    assert not +worker.metrics.buffer.lost


async def test_scrapes_that_are_too_large_together_go_one_by_one_and_whole(
    peers: Peers, folder: Path, clock: ManualClock
) -> None:
    buffer = DiskBuffer(folder, LARGE)
    for time in (NOW, NOW + 1000, NOW + 2000):
        buffer.add(Batch(tuple(samples(time))))
    peers.scrape = [status("503 Service Unavailable")] * 1000
    peers.uploads = [status("413 Request Entity Too Large")] * 2  # for three, then for two
    async with running(peers.config(), buffer, clock):
        for pushed in (1, 2):
            await paused(peers, clock, pushed)
            await advance(clock, 2)
        await until(lambda: not buffer.waiting)
    assert [len(push[0].metrics) for push in peers.pushes] == [3, 2, 1, 1, 1]
    assert not [each for each in peers.requests("/upload") if "x-streamgauge-part" in each.headers]


async def test_a_batch_that_is_refused_does_not_hold_up_the_others(
    peers: Peers, folder: Path, clock: ManualClock
) -> None:
    buffer = DiskBuffer(folder, LARGE)
    for time in (NOW, NOW + 1000):
        buffer.add(Batch(tuple(samples(time))))
    peers.scrape = [status("503 Service Unavailable")] * 1000
    peers.uploads = [status("400 Bad Request")] * 2  # for both together, then for the first alone
    async with running(peers.config(), buffer, clock) as worker:
        for refused in (1, 2):
            await paused(peers, clock, refused)
            await advance(clock, 2)
        await until(lambda: not buffer.waiting)
        assert worker.metrics.buffer.lost["refused"] == 1
    assert [len(push[0].metrics) for push in peers.pushes] == [2, 1, 1]
    assert peers.times() == [[NOW + 1000]]
    assert names(folder) == ["000000000001.refused", "lock"]


async def test_a_damaged_batch_is_skipped(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.uploads = [status("503 Service Unavailable")]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: worker.metrics.failed == 1)
        damage(folder / "000000000001.batch")
        peers.families = samples(NOW + 1000)
        worker.reconfigure(peers.config())
        await until(lambda: peers.times() == [[NOW + 1000]])
        assert worker.metrics.buffer.lost["damaged"] == 1


# ---- reload ---------------------------------------------------------------------------------------------------------


async def test_another_configuration_is_used_at_once(peers: Peers, folder: Path, clock: ManualClock) -> None:
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        await until(lambda: peers.taken)
        worker.reconfigure(peers.config(match="down", label="zone=north", to_token="other"))
        await until(lambda: len(peers.taken) == 2)
    assert peers.requests("/federate")[1].target == "/federate?match%5B%5D=down"
    assert peers.requests("/authorize")[1].headers["authorization"] == "Bearer other"
    assert dict(peers.taken[1][0].metrics[0].labels)["zone"] == "north"


async def test_a_grant_that_is_none_is_told(peers: Peers, folder: Path, clock: ManualClock) -> None:
    peers.grants = [answer(json.dumps({"token": "", "labels": {}})), answer("nonsense"), answer("[1]")]
    async with running(peers.config(), DiskBuffer(folder, LARGE), clock) as worker:
        for pause in (0.5, 1, 2):
            failed = worker.metrics.failed
            await until(lambda failed=failed: worker.metrics.failed > failed)
            assert "cannot be read" in worker.status.problems()[0]
            await advance(clock, pause)
        await until(lambda: peers.taken)
