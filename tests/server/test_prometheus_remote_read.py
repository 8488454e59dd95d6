"""Debian's Prometheus reads from us, and we are asked what it is asked: by its PromQL, and by a client of both.

One without any samples of its own queries through remote read; one with an external label finds what was written with
that label on; and one that has the same samples answers the same requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge.testing.remote_read import (
    HEADERS,
    SAMPLES,
    STREAMED_XOR_CHUNKS,
    ReadSeries,
    chunks_answer,
    frames,
    query,
    request,
    samples_answer,
)
from streamgauge.testing.requests import Series, snappy
from streamgauge.testing.server import ServerProcess
from streamgauge.wire.snappy import decompress

from .conftest import PLAIN
from .test_prometheus_promql import (
    AT,
    BEGIN,
    END,
    END_S,
    EXPRESSIONS,
    START_S,
    STEP_S,
    assert_same,
    comparable,
    ours_of,
    random_series,
)

pytestmark = pytest.mark.peer("prometheus")

NAMES, JOB = ("__name__", "=~", "c_total|g|other|gaps|h_bucket|info"), ("job", "=~", "api|web")
BLOCK = 7_200_000
"""Where it begins a new chunk, whatever there is in the one before."""
FIRST = BEGIN if BEGIN // BLOCK == (BEGIN + 400_000) // BLOCK else BEGIN + 400_000
ONE_CHUNK = [
    Series({"__name__": "one_chunk", "i": str(i)}, [(FIRST + 15_000 * at + i, at * i / 7) for at in range(25)])
    for i in range(5)
]
"""Samples that it keeps in one chunk for each series: few, and of one block."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One of its own: what other tests write would be asked for, too."""
    with ServerProcess.start(tmp_path_factory.mktemp("read") / "data", PLAIN) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def written(server: ServerProcess) -> None:
    replicated = [Series({"__name__": "replicated", "replica": name}, [(END - 1, 1.0)]) for name in ("one", "two")]
    assert server.write([*random_series(), *ONE_CHUNK, *replicated]).status == 204


@pytest.fixture(scope="module")
def reader(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A Prometheus that has nothing and reads from us."""
    with ServerProcess.start_prometheus(tmp_path_factory.mktemp("reader"), reading_from(server)) as running:
        yield running


def reading_from(server: ServerProcess) -> str:
    return f'remote_read: [{{url: "{server.url}/api/v1/read", read_recent: true}}]\n'


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A Prometheus that has the same samples."""
    folder: Path = tmp_path_factory.mktemp("peer")
    arguments = ["--web.enable-remote-write-receiver"]
    with ServerProcess.start_prometheus(folder, "scrape_configs: []\n", arguments) as running:
        assert running.write([*random_series(), *ONE_CHUNK]).status == 204
        yield running


# ---- as a source of its queries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", [text for text in EXPRESSIONS + AT if not text.startswith('"')])
def test_its_promql_on_what_it_reads_is_ours(server: ServerProcess, reader: ServerProcess, expression: str) -> None:
    span = {"start": str(START_S), "end": str(END_S), "step": str(STEP_S)}
    theirs = comparable(reader.post("/api/v1/query_range", {"query": expression, **span}).json())
    assert_same(comparable(server.post("/api/v1/query_range", {"query": ours_of(expression), **span}).json()), theirs)


@pytest.mark.parametrize("selector", ["c_total[2m]", "gaps[10m]", "odd[5m]", "odd[60m]", "nothing[5m]"])
def test_it_has_the_same_raw_samples(server: ServerProcess, reader: ServerProcess, selector: str) -> None:
    form = {"query": selector, "time": str(END_S)}
    ours, theirs = (comparable(each.post("/api/v1/query", form).json()) for each in (server, reader))
    assert_same(ours, theirs)


def test_it_finds_what_has_its_external_label(server: ServerProcess, tmp_path: Path) -> None:
    """It asks for its own label with its own value, unless the query names the label, and takes it off the answer."""
    config = "global: {external_labels: {replica: one}}\n" + reading_from(server)
    at = END_S + 60
    with ServerProcess.start_prometheus(tmp_path, config) as reader:
        assert [each["metric"] for each in reader.query("replicated", at)] == [{"__name__": "replicated"}]
        assert [each["metric"]["replica"] for each in reader.query('replicated{replica="two"}', at)] == ["two"]


# ---- as another that answers ----------------------------------------------------------------------------------------


def read(server: ServerProcess, kind: int, *queries: bytes) -> bytes:
    answer = server.request("POST", "/api/v1/read", snappy(request(*queries, accept=[kind])), HEADERS)
    assert answer.status == 200, answer.text
    return decompress(answer.body, 1 << 30) if kind == SAMPLES else answer.body


def in_order(series: list[ReadSeries]) -> list[ReadSeries]:
    return sorted(series, key=lambda one: one.labels)


def without_negative_zero(series: list[ReadSeries]) -> list[ReadSeries]:
    """Its encoder leaves out every value that equals 0, so that -0 is read as 0."""
    return [
        ReadSeries(one.labels, [(time, 0 if bits == 1 << 63 else bits) for time, bits in one.samples]) for one in series
    ]


ASKED = [
    query(BEGIN, END, NAMES, JOB),
    query(BEGIN + 600_000, BEGIN + 900_000, ("__name__", "=", "gaps"), ("instance", "!=", "a:1")),
    query(BEGIN, END, ("__name__", "=", "odd"), ("nothing", "=", "")),
    query(BEGIN, END, NAMES, JOB, ("__name__", "!~", "c_total|h_.*"), hints=(END - 600_000, END)),
    query(BEGIN, END, ("__name__", "=", "nothing")),
]


def test_samples_are_those_that_it_answers(server: ServerProcess, peer: ServerProcess) -> None:
    ours, theirs = (samples_answer(read(each, SAMPLES, *ASKED)) for each in (server, peer))
    assert [without_negative_zero(result) for result in ours] == [in_order(result) for result in theirs]
    assert [len(result) > 0 for result in ours] == [True, True, True, True, False]


def test_chunks_hold_what_its_chunks_hold(server: ServerProcess, peer: ServerProcess) -> None:
    """In the same order. It cuts chunks by the clock, too, so that they are not the same ones."""
    ours, theirs = (chunks_answer(read(each, STREAMED_XOR_CHUNKS, *ASKED), len(ASKED)) for each in (server, peer))
    assert ours == theirs


def test_frames_are_the_same_bytes_where_chunks_are_the_same(server: ServerProcess, peer: ServerProcess) -> None:
    asked = query(BEGIN, END, ("__name__", "=", "one_chunk"))
    ours, theirs = (read(each, STREAMED_XOR_CHUNKS, asked, asked) for each in (server, peer))
    assert len(frames(ours)) == 2 * len(ONE_CHUNK)
    assert ours == theirs
