"""One scrape after the other of a real target: what is stored, and what is said of it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import pytest

from streamgauge.clock import ManualClock
from streamgauge.errors import IndexFull, LabelFull, MetricFull, Overloaded, ReadOnly
from streamgauge.http.client import HttpClient, Resolver
from streamgauge.http.options import TlsContexts
from streamgauge.ingest.discovery.groups import ADDRESS, Group
from streamgauge.ingest.scrape.http_fetcher import http_scraper
from streamgauge.ingest.scrape.job import Limits, ScrapeJob
from streamgauge.ingest.scrape.scraper import Scraper
from streamgauge.ingest.scrape.target import Health, Target, targets_of
from streamgauge.ingest.turns import Turns
from streamgauge.model.arrays import STALE_BITS
from streamgauge.model.labels import labels_of
from streamgauge.relabel import Action, Relabelling, Rule
from streamgauge.stats import Stats
from streamgauge.testing import MemorySink
from streamgauge.testing.target import TEXT, HttpTarget, Request, answer

pytestmark = pytest.mark.anyio

MakeScraper = Callable[..., Scraper]
OWN = {"job": "j", "instance": "i"}
T = 1_700_000_000_000

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def value(sink: MemorySink, metric: str, time: int = T, **labels: str) -> float | None:
    return dict(sink.samples(__name__=metric, **OWN, **labels)).get(time)


def is_stale(sink: MemorySink, metric: str, time: int, **labels: str) -> bool:
    return dict(sink.bits(__name__=metric, **OWN, **labels)).get(time) == STALE_BITS


def reports(sink: MemorySink, time: int = T) -> dict[str, float | None]:
    names = ("up", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added")
    return {name: value(sink, name, time) for name in names}


async def test_samples_and_what_is_said_of_the_scrape(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    target.reply = answer('# HELP a Some text.\n# TYPE a counter\na{b="c"} 1\nx 2.5\n')
    scraper = make()
    await scraper.scrape(T)
    assert value(sink, "a", b="c") == 1.0
    assert value(sink, "x") == 2.5
    assert list(reports(sink).values()) == [1.0, 2.0, 2.0, 2.0]
    assert value(sink, "scrape_duration_seconds") == 0.0  # on a clock that stands
    assert (scraper.report.health, scraper.report.error, scraper.report.started) == (Health.UP, "", T)
    assert sink.metadata["a"].help == "Some text."
    assert [known.type for known in scraper.metadata()] == ["counter"]
    await scraper.scrape(T + 1000)
    assert reports(sink, T + 1000)["scrape_series_added"] == 0.0
    assert target.connections == 1
    assert sink.appends == 2, "a scrape is one append"


@pytest.mark.parametrize(
    ("bodies", "media"),
    [
        (("# TYPE a gauge\na 1\n", "# TYPE a counter\na 2\n", '# TYPE a histogram\na_bucket{le="1"} 3\n'), TEXT),
        (
            (
                "# TYPE a gauge\na 1\n# EOF\n",
                "# TYPE a counter\na_total 2\n# EOF\n",
                '# TYPE a histogram\na_bucket{le="1"} 3\na_bucket{le="+Inf"} 3\na_count 3\na_sum 3\n# EOF\n',
            ),
            OPENMETRICS,
        ),
    ],
)
async def test_a_metric_may_change_its_type_between_scrapes(
    target: HttpTarget, make: MakeScraper, sink: MemorySink, bodies: tuple[str, ...], media: str
) -> None:
    """What is there is stored, what is not any more gets its marker, and what is known of the metric follows."""
    scraper = make()
    for number, (body, kind) in enumerate(zip(bodies, ("gauge", "counter", "histogram"), strict=True)):
        target.reply = answer(body, media)
        await scraper.scrape(T + number * 1000)
        assert (scraper.report.health, scraper.report.error) == (Health.UP, "")
        assert sink.metadata["a"].type == kind
    counter = "a" if media == TEXT else "a_total"
    assert value(sink, "a") == 1.0
    assert value(sink, counter, T + 1000) == 2.0
    assert is_stale(sink, counter, T + 2000)
    assert value(sink, "a_bucket", T + 2000, le="1.0") == 3.0


async def test_what_the_request_says(target: HttpTarget, make: MakeScraper) -> None:
    job = ScrapeJob("j", timeout=2500, metrics_path="/a b", params=(("x", ("1", "2")), ("y", ("&",))))
    await make(job).scrape(T)
    (request,) = target.requests
    assert request.target == "/a%20b?x=1&x=2&y=%26"
    assert request.headers["accept"] == (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
        "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    assert request.headers["accept-encoding"] == "gzip"
    assert request.headers["x-prometheus-scrape-timeout-seconds"] == "2.5"
    assert request.headers["user-agent"].startswith("streamgauge/")
    assert request.headers["host"] == target.address


async def test_a_series_that_goes_gets_a_stale_marker(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    scraper = make()
    target.reply = answer("a 1\nb 1\n")
    await scraper.scrape(T)
    target.reply = answer("a 2\n")
    await scraper.scrape(T + 1000)
    assert is_stale(sink, "b", T + 1000)
    assert value(sink, "a", T + 1000) == 2.0
    await scraper.scrape(T + 2000)
    assert len(sink.samples(__name__="b", **OWN)) == 2, "once"
    target.reply = answer("a 3\nb 3\n")
    await scraper.scrape(T + 3000)
    assert value(sink, "b", T + 3000) == 3.0
    assert reports(sink, T + 3000)["scrape_series_added"] == 1.0


async def test_what_is_said_of_a_scrape_counts_before_what_the_target_said_of_it(
    target: HttpTarget, make: MakeScraper, sink: MemorySink
) -> None:
    """Some targets have a series `up` of their own, with whose end the target's is not to end."""
    scraper = make()
    for number, (reply, up) in enumerate(
        (
            (answer("a 1\nup 3\n"), 1.0),
            (answer("a 1\n"), 1.0),
            (answer("up 3\n"), 1.0),
            (answer("", status="500 x"), 0.0),
        )
    ):
        target.reply = reply
        await scraper.scrape(T + number)
        assert value(sink, "up", T + number) == up


async def test_a_target_that_fails_makes_all_its_series_stale(
    target: HttpTarget, make: MakeScraper, sink: MemorySink, stats: Stats
) -> None:
    scraper = make()
    target.reply = answer("a 1\nb 1\n")
    await scraper.scrape(T)
    target.reply = answer("gone", status="503 Service Unavailable")
    await scraper.scrape(T + 1000)
    assert is_stale(sink, "a", T + 1000)
    assert is_stale(sink, "b", T + 1000)
    assert list(reports(sink, T + 1000).values()) == [0.0, 0.0, 0.0, 0.0]
    assert (scraper.report.health, scraper.report.error) == (Health.DOWN, "the answer was 503 Service Unavailable")
    assert b'streamgauge_scrape_failures_total{reason="status"} 1.0' in stats.exposition()
    target.reply = answer("a 2\n")
    await scraper.scrape(T + 2000)
    assert value(sink, "a", T + 2000) == 2.0
    assert len(sink.samples(__name__="b", **OWN)) == 2


async def test_timestamps_of_the_target(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    """Series with their own times get no stale markers, unless that is asked for."""
    target.reply = answer(f"a 1 {T - 5000}\nb 1\n")
    for job, stale in ((ScrapeJob("j"), False), (ScrapeJob("j", track_timestamps_staleness=True), True)):
        sink.batches.clear()
        target.reply = answer(f"a 1 {T - 5000}\nb 1\n")
        scraper = make(job)
        await scraper.scrape(T)
        assert sink.samples(__name__="a", **OWN) == [(T - 5000, 1.0)]
        assert value(sink, "b") == 1.0
        target.reply = answer("b 1\n")
        await scraper.scrape(T + 1000)
        assert is_stale(sink, "a", T + 1000) == stale
    target.reply = answer(f"a 1 {T - 5000}\n")
    await make(ScrapeJob("j", honor_timestamps=False)).scrape(T + 2000)
    assert value(sink, "a", T + 2000) == 1.0


async def test_a_time_far_ahead_is_left_out_and_named(
    target: HttpTarget, make: MakeScraper, sink: MemorySink, clock: ManualClock
) -> None:
    target.reply = answer(f"a 1 {T + 700_000}\nb 1 {T + 500_000}\n")
    scraper = make()
    await scraper.scrape(T)
    assert not sink.samples(__name__="a", **OWN)
    assert sink.samples(__name__="b", **OWN) == [(T + 500_000, 1.0)]
    assert scraper.report.health is Health.UP
    assert scraper.report.error.startswith("1 samples were not stored: sample 1: time")


async def test_clashing_labels(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    target.reply = answer('a{job="x",exported_job="y",instance=""} 1\n')
    await make().scrape(T)
    assert value(sink, "a", exported_exported_job="x", exported_job="y") == 1.0
    sink.batches.clear()
    await make(ScrapeJob("j", honor_labels=True)).scrape(T)
    assert sink.samples(__name__="a", job="x", exported_job="y") == [(T, 1.0)], "an empty label keeps the target's away"


async def test_metric_relabelling(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    rules = (
        Rule(Action.DROP, ("__name__",), regex="b.*"),
        Rule(Action.REPLACE, ("__name__", "instance"), target_label="d", replacement="$1"),
        Rule(Action.LABELDROP, regex="c"),
    )
    target.reply = answer('a{c="1"} 1\nb 2\nbc 3\n')
    scraper = make(ScrapeJob("j", metric_relabel=rules))
    await scraper.scrape(T)
    assert value(sink, "a", d="a;i") == 1.0
    assert list(reports(sink).values()) == [1.0, 3.0, 1.0, 1.0]
    assert scraper.report.error == ""
    nameless = (Rule(Action.LABELDROP, regex="__name__"),)
    scraper = make(ScrapeJob("j", metric_relabel=nameless))
    await scraper.scrape(T)
    assert scraper.report.error == 'line 1: relabelling leaves no metric name: a{c="1"}'


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(samples=1), "sample_limit exceeded: there are more than 1 samples"),
        (Limits(labels=3), "line 2: label_limit exceeded: a has 4 labels; the limit is 3"),
        (Limits(label_name=8), "line 2: label_name_length_limit exceeded: a: the name of label long_name has 9 bytes"),
        (
            Limits(label_value=3),
            "line 2: label_value_length_limit exceeded: a: the value of label long_name has 5 bytes",
        ),
        (Limits(body=30), "the body is larger than 30 bytes, which is the limit"),
    ],
)
async def test_limits_make_the_whole_scrape_fail(
    target: HttpTarget, make: MakeScraper, sink: MemorySink, limits: Limits, words: str
) -> None:
    target.reply = answer('# TYPE a gauge\na{long_name="value"} 1\n\na{} 2\nb 3\n')
    scraper = make(ScrapeJob("j", limits=limits))
    await scraper.scrape(T)
    assert scraper.report.health is Health.DOWN
    assert scraper.report.error.startswith(words)
    assert reports(sink)["up"] == 0.0
    assert reports(sink)["scrape_samples_scraped"] == (0.0 if limits.body else 3.0), "by how much to raise a limit"
    assert not [labels for labels in sink.series() if labels["__name__"] in ("a", "b")]


async def test_more_about_the_scrape(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    job = ScrapeJob("j", extra_metrics=True, limits=Limits(samples=7), timeout=3000)
    await make(job).scrape(T)
    assert value(sink, "scrape_timeout_seconds") == 3.0
    assert value(sink, "scrape_sample_limit") == 7.0
    assert value(sink, "scrape_body_size_bytes") == 4.0
    await make(job, max_body=3).scrape(T + 1000)
    assert value(sink, "scrape_body_size_bytes", T + 1000) == -1.0


async def test_gzip(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    target.reply = answer(gzip.compress(b"a 1\n") + gzip.compress(b"b 2\n"), headers={"content-encoding": "gzip"})
    scraper = make()
    await scraper.scrape(T)
    assert (value(sink, "a"), value(sink, "b")) == (1.0, 2.0)
    target.reply = answer(gzip.compress(bytes(1 << 21)), headers={"content-encoding": "gzip"})
    await scraper.scrape(T)
    assert scraper.report.error == f"the body is larger than {1 << 20} bytes, which is the limit"
    target.reply = answer(gzip.compress(b"a 1\n")[:-6], headers={"content-encoding": "gzip"})
    await scraper.scrape(T)
    assert scraper.report.error == "the compressed body is cut off"
    await make(ScrapeJob("j", compression=False)).scrape(T)
    assert target.requests[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("text/html; charset=utf-8", "the answer has content type text/html, which is no format of metrics"),
        ("", "the answer has no content type"),
        ("\x01", "the answer has a content type that makes no sense"),
    ],
)
async def test_what_is_no_format_of_metrics(
    target: HttpTarget, make: MakeScraper, sink: MemorySink, content_type: str, words: str
) -> None:
    target.reply = answer("a 1\n", content_type.replace("\x01", "text"))
    scraper = make()
    await scraper.scrape(T)
    assert scraper.report.error == f"{words}; set fallback_scrape_protocol if it is metrics in text all the same"
    scraper = make(ScrapeJob("j", fallback_protocol="PrometheusText0.0.4"))
    await scraper.scrape(T)
    assert value(sink, "a") == 1.0


async def test_a_full_index_leaves_out_only_what_is_new(
    target: HttpTarget, make: MakeScraper, sink: MemorySink
) -> None:
    target.reply = answer("a 1\n")
    scraper = make()
    await scraper.scrape(T)
    sink.refuse_series = Overloaded("the index is full")
    target.reply = answer("a 2\nb 2\n")
    await scraper.scrape(T + 1000)
    assert value(sink, "a", T + 1000) == 2.0
    assert scraper.report.health is Health.UP
    assert scraper.report.error == "1 samples of new series were not stored: the index is full"
    sink.refuse_series = None
    await scraper.scrape(T + 2000)
    assert value(sink, "b", T + 2000) == 2.0


@pytest.mark.parametrize(("full", "reason"), [(MetricFull, "metric_series_limit"), (LabelFull, "label_values_limit")])
async def test_a_limit_of_series_keeps_the_old_ones_and_is_counted(
    target: HttpTarget, make: MakeScraper, sink: MemorySink, stats: Stats, full: type[IndexFull], reason: str
) -> None:
    target.reply = answer("a 1\n")
    scraper = make()
    await scraper.scrape(T)
    sink.refuse_series = full("metric b has 7 series; the limit is 7 (--max-series-per-metric)", "b")
    target.reply = answer('a 2\nb{n="1"} 2\nb{n="2"} 2\n')
    for time in (T + 1000, T + 2000):  # it is tried again with each scrape
        await scraper.scrape(time)
        assert value(sink, "a", time) == 2.0
        assert value(sink, "up", time) == 1.0
        assert scraper.report.health is Health.UP
        assert scraper.report.error.startswith("2 samples of new series were not stored: metric b has 7 series")
    assert f'streamgauge_refused_total{{reason="{reason}",source="scrape"}} 4.0' in stats.exposition().decode()


async def test_a_store_that_refuses_is_tried_again(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    target.reply = answer("# HELP a Some text.\na 1\n")
    scraper = make()
    sink.failure = ReadOnly("the disk is full")
    await scraper.scrape(T)
    assert (scraper.report.health, scraper.report.error) == (Health.UP, "scraped, but not stored: the disk is full")
    sink.failure = None
    await scraper.scrape(T + 1000)
    assert value(sink, "a", T + 1000) == 1.0
    assert scraper.report.error == ""
    assert sink.metadata["a"].help == "Some text.", "though the text is as it was"
    sink.metadata.clear()
    await scraper.scrape(T + 2000)
    assert not sink.metadata, "once"


async def test_pruned_series_are_resolved_again(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    scraper = make()
    await scraper.scrape(T)
    sink.prune()
    await scraper.scrape(T + 1000)
    assert value(sink, "a", T + 1000) == 1.0
    assert reports(sink, T + 1000)["up"] == 1.0


async def test_openmetrics(target: HttpTarget, make: MakeScraper, sink: MemorySink, stats: Stats) -> None:
    target.reply = answer("# TYPE a_s counter\n# UNIT a_s s\na_s_total 1 # {} 1\n# EOF\n", OPENMETRICS)
    scraper = make()
    await scraper.scrape(T)
    assert value(sink, "a_s_total") == 1.0
    assert sink.metadata["a_s"].unit == "s"
    assert (scraper.report.health, scraper.report.error) == (Health.UP, "")
    assert b'streamgauge_refused_total{reason="native_histogram"' not in stats.exposition()
    assert b'streamgauge_refused_total{reason="exemplar",source="scrape"} 1.0' in stats.exposition()


async def test_a_target_may_change_its_format(target: HttpTarget, make: MakeScraper, sink: MemorySink) -> None:
    scraper = make()
    for number, reply in enumerate(
        (answer("a 1\n# EOF\n", OPENMETRICS), answer("a 2\n"), answer("a 3\n# EOF\n", OPENMETRICS))
    ):
        target.reply = reply
        await scraper.scrape(T + number)
        assert value(sink, "a", T + number) == number + 1.0


async def test_what_is_not_valid_openmetrics_is_asked_for_as_text(
    target: HttpTarget, make: MakeScraper, sink: MemorySink
) -> None:
    """As Go's client writes it, and Prometheus takes it: one name for a gauge and for a counter."""

    def reply(request: Request) -> bytes:
        if "openmetrics" in request.headers["accept"]:
            return answer("# TYPE a gauge\na 1\n# TYPE a counter\na_total 1\n# EOF\n", OPENMETRICS)
        return answer("# TYPE a gauge\na 1\n# TYPE a_total counter\na_total 1\n")

    target.reply = reply
    scraper = make()
    await scraper.scrape(T)
    assert (value(sink, "a"), value(sink, "a_total")) == (1.0, 1.0)
    assert scraper.report.health is Health.UP
    assert scraper.report.error.startswith("this is not valid OpenMetrics, so text was asked for instead: line 3: ")
    await scraper.scrape(T + 1000)
    assert len(target.requests) == 3, "it is remembered"
    target.reply = answer("a 1\na 1\nb\n# EOF\n", OPENMETRICS)
    await scraper.scrape(T + 2000)
    assert scraper.report.error.startswith("line 3: expected a value")
    strict = make(ScrapeJob("j", protocols=("OpenMetricsText1.0.0",)))
    await strict.scrape(T + 3000)
    assert strict.report.health is Health.DOWN


async def test_openmetrics_that_is_cut_off_once_is_still_openmetrics(target: HttpTarget, make: MakeScraper) -> None:
    def reply(request: Request) -> bytes:
        return answer(body, OPENMETRICS) if "openmetrics" in request.headers["accept"] else answer("a 1\n")

    target.reply = reply
    body = "a 1\n# EOF\n"
    scraper = make()
    await scraper.scrape(T)
    body = "a 1\n"
    await scraper.scrape(T + 1000)
    assert scraper.report.health is Health.DOWN
    assert "it may be cut off" in scraper.report.error
    body = "a 1\n# EOF\n"
    await scraper.scrape(T + 2000)
    assert (scraper.report.health, scraper.report.error, len(target.requests)) == (Health.UP, "", 3)
    body = "a 1\n"
    never = make()
    await never.scrape(T)
    assert never.report.health is Health.UP, "it never was whole, so text is asked for"


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (ScrapeJob("j", limits=Limits(samples=1)), "sample_limit exceeded"),
        (ScrapeJob("j", limits=Limits(labels=2)), "line 1: label_limit exceeded"),
        (ScrapeJob("j", limits=Limits(label_name=3)), "line 1: label_name_length_limit exceeded"),
        (ScrapeJob("j", metric_relabel=(Rule(Action.LABELDROP, regex="__name__"),)), "line 1: relabelling leaves no"),
    ],
)
async def test_openmetrics_beyond_a_limit_is_still_openmetrics(
    target: HttpTarget, make: MakeScraper, job: ScrapeJob, words: str
) -> None:
    target.reply = answer("a 1\nb 1\n# EOF\n", OPENMETRICS)
    scraper = make(job)
    for number in range(2):
        await scraper.scrape(T + number)
        assert words in scraper.report.error
        assert "not valid OpenMetrics" not in scraper.report.error
    assert len(target.requests) == 2
    assert "openmetrics" in target.requests[1].headers["accept"]


async def test_the_log_has_no_parameters(
    target: HttpTarget, make: MakeScraper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scraper = make(ScrapeJob("j", params=(("token", ("sesame",)),)))
    target.reply = answer("", status="500 No")
    await scraper.scrape(T)
    target.reply = answer("a 1\n")
    await scraper.scrape(T + 1000)
    assert f"{target.url()}?token=… (job j) cannot be scraped" in caplog.text
    assert f"{target.url()}?token=… (job j) is scraped again" in caplog.text
    assert "sesame" not in caplog.text


async def test_the_words_behind_a_status_are_shortened_and_made_visible(target: HttpTarget, make: MakeScraper) -> None:
    target.reply = answer("", status="500 \x1b[31m\x7f" + "x" * 1000)
    scraper = make()
    await scraper.scrape(T)
    assert scraper.report.error == "the answer was 500 \\x1b[31m\\x7f" + "x" * 74


class Noting(MemorySink):
    """Notes in which pass of the event loop it was asked for a series of the target's text."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.passes: list[int] = []

    def resolve(self, key: bytes) -> int:
        if labels_of(key)["__name__"] == "a":
            self.passes.append(self.now)
        return super().resolve(key)

    async def tick(self) -> None:
        while True:
            self.now += 1
            await asyncio.sleep(0)


async def test_one_scrape_is_read_in_a_pass_of_the_loop(target: HttpTarget, stats: Stats, clock: ManualClock) -> None:
    sink, resolver, turns = Noting(), Resolver(), Turns(seconds=0.0)
    group = Group("g", tuple({ADDRESS: target.address, "n": str(number)} for number in range(20)), {})
    job = ScrapeJob("j")
    scrapers = [
        http_scraper(
            job,
            found,
            Relabelling(()),
            HttpClient(job.http, TlsContexts(job.http.tls), resolver),
            sink,
            stats,
            clock,
            turns,
            1 << 20,
        )
        for found in targets_of(group, job, Relabelling(()))
        if isinstance(found, Target)
    ]
    ticking = asyncio.create_task(sink.tick())
    await asyncio.gather(*(scraper.scrape(T) for scraper in scrapers))
    ticking.cancel()
    assert len(sink.passes) == 20
    assert len(set(sink.passes)) == 20
    for scraper in scrapers:
        scraper.close()
    resolver.close()
