"""Data readers that are polled: good ones, and such as hang, flood, send garbage or go away."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc
import pytest

from streamgauge.client import Datum, Reader
from streamgauge.clock import Clock, ManualClock, SystemClock
from streamgauge.http.options import HttpOptions, Secret, Tls
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.gate import Gate
from streamgauge.ingest.scrape.grpc_fetcher import SOURCE, grpc_scraper
from streamgauge.ingest.scrape.job import Limits, ScrapeJob
from streamgauge.ingest.scrape.loop import ScrapeLoop, Waking
from streamgauge.ingest.scrape.scraper import Scraper
from streamgauge.ingest.scrape.target import Health, Target, targets_of
from streamgauge.ingest.turns import Turns
from streamgauge.relabel import Action, Relabelling, Rule
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.certificates import CertificateAuthority
from streamgauge.testing.until import until

pytestmark = pytest.mark.anyio

T = 1_700_000_000_000
MS = 1_000_000
JOB = ScrapeJob("j", over_grpc=True, metrics_path="", scheme="grpc", timeout=10_000)


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


MakePoller = Callable[..., Scraper]


@pytest.fixture
async def poller(sink: MemorySink, stats: Stats) -> AsyncIterator[MakePoller]:
    async with AsyncExitStack() as stack:

        def make(address: str, job: ScrapeJob = JOB, clock: Clock | None = None) -> Scraper:
            group = Group("test", ({ADDRESS: address},), {"instance": "i", "room": "kitchen"})
            (found,) = targets_of(group, job, Relabelling(job.relabel))
            assert isinstance(found, Target), found
            relabelling = Relabelling(job.metric_relabel)
            now = clock or SystemClock()
            made = grpc_scraper(job, found, relabelling, sink, stats, now, Turns(), 1 << 20, Gate(now))
            stack.callback(made.close)
            return made

        yield make
    await asyncio.sleep(0)  # connections close


@pytest.fixture
def readers() -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(*data: Datum, address: str = "127.0.0.1:0", **options: str) -> Reader:
        made.append(Reader(lambda: data, address, **options))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


@pytest.fixture
def raw_reader() -> Iterator[Callable[[Callable[..., Iterator[bytes]]], str]]:
    """A reader that sends any bytes as messages; its address."""
    from concurrent.futures import ThreadPoolExecutor

    servers: list[grpc.Server] = []

    def make(answer: Callable[..., Iterator[bytes]]) -> str:
        server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        takes = len(inspect.signature(answer).parameters)
        handler = grpc.unary_stream_rpc_method_handler(lambda request, context: answer(*[context][:takes]))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("proto.Telemetry", {"GetTimeSeriesData": handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield make
    for server in servers:
        server.stop(0).wait()


@pytest.fixture
def aborting_reader(raw_reader: Callable[..., str]) -> Callable[[grpc.StatusCode], str]:
    """A reader that gives one value, and ends with a code."""

    def make(code: grpc.StatusCode) -> str:
        def answer(context: grpc.ServicerContext) -> Iterator[bytes]:
            yield b"\x0a\x01m"
            context.set_code(code)

        return raw_reader(answer)

    return make


def labels(metric: str, **more: str) -> dict[str, str]:
    return {"__name__": metric, "job": "j", "instance": "i", "room": "kitchen", **more}


async def test_values_come_with_their_own_times_and_the_labels_of_the_target(
    poller: MakePoller, readers: Callable[..., Reader], sink: MemorySink, stats: Stats
) -> None:
    reader = readers(Datum("t", 21.5, {"room": "attic"}, T * MS), Datum("t", 22.0, {"sensor": "2"}, (T + 5) * MS))
    scraper = poller(reader.address)
    await scraper.scrape(T + 60_000)
    assert scraper.report.health is Health.UP
    assert sink.samples(**labels("t", exported_room="attic")) == [(T, 21.5)]
    assert sink.samples(**labels("t", sensor="2")) == [(T + 5, 22.0)]
    assert sink.samples(**labels("up")) == [(T + 60_000, 1.0)]
    assert sink.samples(**labels("scrape_samples_scraped")) == [(T + 60_000, 2.0)]
    assert sink.samples(**labels("scrape_duration_seconds"))
    await scraper.scrape(T + 120_000)
    assert sink.samples(**labels("scrape_series_added")) == [(T + 60_000, 2.0), (T + 120_000, 0.0)]


async def test_a_value_without_a_time_has_that_of_the_poll(
    poller: MakePoller, raw_reader: Callable[..., str], sink: MemorySink
) -> None:
    await poller(raw_reader(lambda: iter([b"\x0a\x01m"]))).scrape(T)
    assert sink.samples(**labels("m")) == [(T, 0.0)]


async def test_values_that_are_closer_than_a_millisecond_are_counted(
    poller: MakePoller, readers: Callable[..., Reader], sink: MemorySink, stats: Stats
) -> None:
    data = (Datum("m", 1.0, time=T * MS), Datum("m", 2.0, time=T * MS + 1), Datum("m", 2.0, time=T * MS))
    await poller(readers(*data).address).scrape(T)
    assert sink.samples(**labels("m")) == [(T, 1.0)]
    counts = {family.name: family.samples for family in stats.families()}
    assert [v for _, given, v in counts["streamgauge_grpc_collisions_total"] if ("source", SOURCE) in given] == [1.0]


async def test_metrics_are_relabelled(poller: MakePoller, readers: Callable[..., Reader], sink: MemorySink) -> None:
    drop = Rule(Action.DROP, ("__name__",), regex="b")
    job = replace(JOB, metric_relabel=(drop,))
    await poller(readers(Datum("a", 1.0, time=T * MS), Datum("b", 1.0, time=T * MS)).address, job).scrape(T)
    assert sink.samples(**labels("scrape_samples_post_metric_relabeling")) == [(T, 1.0)]
    assert sink.samples(**labels("a")) == [(T, 1.0)]


async def test_a_reader_that_is_down_is_down_and_found_again(
    poller: MakePoller, readers: Callable[..., Reader], sink: MemorySink
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    scraper = poller(address)
    await scraper.scrape(T)
    assert scraper.report.health is Health.DOWN
    assert "UNAVAILABLE" in scraper.report.error
    readers(Datum("m", 1.0, time=T * MS), address=address)
    await scraper.scrape(T + 60_000)
    assert sink.samples(**labels("up")) == [(T, 0.0), (T + 60_000, 1.0)]


class Hanging:
    """Gives one value, and then nothing until it is over."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self) -> Iterator[bytes]:
        yield b"\x0a\x01m"
        self.over.wait()


async def test_a_reader_that_hangs_disturbs_nobody(
    poller: MakePoller, readers: Callable[..., Reader], raw_reader: Callable[..., str]
) -> None:
    answer = Hanging()
    hanging, good = poller(raw_reader(answer)), poller(readers(Datum("m", 1.0, time=T * MS)).address)
    waiting = asyncio.create_task(hanging.scrape(T))
    await good.scrape(T)
    assert (good.report.health, waiting.done()) == (Health.UP, False)
    answer.over.set()
    await waiting
    assert hanging.report.health is Health.UP


async def test_a_reader_that_hangs_has_its_time(
    poller: MakePoller, raw_reader: Callable[..., str], sink: MemorySink
) -> None:
    answer = Hanging()
    scraper = poller(raw_reader(answer), replace(JOB, timeout=100))
    await scraper.scrape(T)
    answer.over.set()
    assert (scraper.report.health, scraper.report.error) == (Health.DOWN, "no whole answer within 0.1 s, the timeout")
    assert sink.samples(**labels("up")) == [(T, 0.0)]
    assert sink.samples(**labels("m")) == []


@pytest.mark.parametrize(
    ("job", "answer", "error"),
    [
        (JOB, [b"\xff"], "row 1: protobuf: a number is cut off at byte 1"),
        (JOB, [b"\x0a\x01m", b""], "row 2: metric must be set"),
        (JOB, [b"\x0a\x01\xff"], "row 1: "),
        (JOB, [bytes(2 << 20)], "RESOURCE_EXHAUSTED: "),
        (
            replace(JOB, limits=Limits(samples=2)),
            [b"\x0a\x01m"] * 3,
            "sample_limit exceeded",
        ),
        (
            replace(JOB, limits=Limits(body=1000)),
            [b"\x0a\x01m"] * 30,
            "the answer takes more than 1000 bytes",
        ),
    ],
)
async def test_what_makes_no_sense_or_is_too_much_is_down_for_that_reason(
    poller: MakePoller,
    raw_reader: Callable[..., str],
    sink: MemorySink,
    job: ScrapeJob,
    answer: list[bytes],
    error: str,
) -> None:
    scraper = poller(raw_reader(lambda: iter(answer)), job)
    await scraper.scrape(T)
    assert scraper.report.health is Health.DOWN
    assert scraper.report.error.startswith(error)
    assert sink.samples(**labels("up")) == [(T, 0.0)]


async def test_a_limit_of_samples_is_of_those_that_relabelling_keeps(
    poller: MakePoller, readers: Callable[..., Reader], sink: MemorySink
) -> None:
    drop = Rule(Action.DROP, ("__name__",), regex="b.*")
    job = replace(JOB, limits=Limits(samples=1), metric_relabel=(drop,))
    scraper = poller(readers(*[Datum(name, 2.0, time=T * MS) for name in ("b1", "a", "b2")]).address, job)
    await scraper.scrape(T)
    assert (scraper.report.health, scraper.report.error) == (Health.UP, "")
    assert sink.samples(**labels("a")) == [(T, 2.0)]


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED])
async def test_a_reader_that_ends_the_call_ends_no_polls(
    poller: MakePoller, aborting_reader: Callable[[grpc.StatusCode], str], code: grpc.StatusCode
) -> None:
    scraper = poller(aborting_reader(code))
    await scraper.scrape(T)
    assert scraper.report.health is (Health.UP if code is grpc.StatusCode.OK else Health.DOWN)
    assert code is grpc.StatusCode.OK or code.name in scraper.report.error


async def test_an_address_is_looked_up_whatever_it_looks_like(poller: MakePoller) -> None:
    """The library knows other ways: files of sockets, for example."""
    scraper = poller("unix:reader")
    await scraper.scrape(T)
    assert "errors resolving unix:reader" in scraper.report.error


async def test_what_a_reader_says_is_part_of_a_line(poller: MakePoller, raw_reader: Callable[..., str]) -> None:
    def answer(context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"\x0a\x01m"
        context.abort(grpc.StatusCode.UNAVAILABLE, "one\ntwo\x1b[31m" + "x" * 5000)

    scraper = poller(raw_reader(answer))
    await scraper.scrape(T)
    assert scraper.report.error.startswith("UNAVAILABLE: one two?[31mxxx")
    assert len(scraper.report.error) < 400


async def test_tls_and_a_token_are_as_configured(
    poller: MakePoller, readers: Callable[..., Reader], tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = CertificateAuthority(tmp_path_factory.mktemp("tls"))
    pair = authority.issue("CN=reader")
    reader = readers(Datum("m", 1.0, time=T * MS), cert_file=str(pair.cert), key_file=str(pair.key), token="T")

    def job(token: str, ca: str) -> ScrapeJob:
        http = HttpOptions(scheme="Bearer", credentials=Secret(token), tls=Tls(ca=Secret(file=ca)))
        return replace(JOB, scheme="grpcs", http=http)

    for token, ca, health, error in (
        ("T", str(authority.file), Health.UP, ""),
        ("U", str(authority.file), Health.DOWN, "UNAUTHENTICATED"),
        ("T", str(pair.cert) + "x", Health.DOWN, "cannot be read"),
    ):
        scraper = poller(reader.address, job(token, ca))
        await scraper.scrape(T)
        assert (scraper.report.health, error in scraper.report.error) == (health, True)


async def test_polls_are_at_the_boundaries_from_the_next_one_on(
    poller: MakePoller, readers: Callable[..., Reader], sink: MemorySink
) -> None:
    clock = ManualClock(T + 1_234)
    boundary = T - T % 60_000 + 60_000
    scraper = poller(readers(Datum("m", 1.0, time=T * MS)).address, clock=clock)
    loop = ScrapeLoop(scraper, clock, Waking(clock), "seed", lambda: "", aligned=True)
    running = asyncio.create_task(loop.run())
    await until(lambda: clock.sleepers == 1)
    assert loop.next_due == boundary
    for number in range(1, 3):
        await clock.advance((loop.next_due - clock.now_ms()) / 1000)
        await until(lambda number=number: loop.next_due == boundary + number * 60_000)
    assert sink.samples(**labels("up")) == [(boundary, 1.0), (boundary + 60_000, 1.0)]
    clock.jump(-7_000)
    await clock.advance(60)  # when it was due
    await until(lambda: clock.sleepers == 1 and loop.next_due == boundary + 120_000)
    running.cancel()


async def test_a_clock_that_is_set_back_during_a_poll_pauses_none(
    poller: MakePoller, raw_reader: Callable[..., str]
) -> None:
    clock = ManualClock(T)
    boundary = T - T % 60_000 + 60_000

    def answer() -> Iterator[bytes]:
        clock.jump(-3_599_000)
        yield b"\x0a\x01m"

    loop = ScrapeLoop(poller(raw_reader(answer), clock=clock), clock, Waking(clock), "seed", lambda: "", aligned=True)
    running = asyncio.create_task(loop.run())
    await until(lambda: clock.sleepers == 1)
    await clock.advance((loop.next_due - clock.now_ms()) / 1000)
    await until(lambda: loop.next_due != boundary)
    assert loop.next_due == boundary - 3_540_000
    running.cancel()
