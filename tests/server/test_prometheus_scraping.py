"""What comes of a target that changes, fails or breaks rules is what comes of it in a real Prometheus."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from streamgauge.testing.server import ServerProcess, eventually
from streamgauge.wire.exposition_text import normal_float

pytestmark = pytest.mark.peer("prometheus")

TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
HISTOGRAM = 'h_bucket{le="1.0"} 1\nh_bucket{le="+Inf"} 2\nh_count 2\nh_sum 3\n'


def stamp(seconds: float) -> int:
    """A time so far from now, ms."""
    return int((time.time() + seconds) * 1000)


ANSWERS: dict[str, Callable[[], tuple[int, str, str]]] = {
    "two series": lambda: (200, TEXT, "a 1\nb 2\n"),
    "one of them is gone": lambda: (200, TEXT, "a 1\n"),
    "an error": lambda: (500, TEXT, "a 1\n"),
    "one has a time of its own": lambda: (200, TEXT, f"a 1\nb 2 {stamp(-1)}\nc 3\n"),
    "and is gone": lambda: (200, TEXT, "a 1\nc 3\n"),
    "a page": lambda: (200, "text/html", "<html>"),
    "twice the same": lambda: (200, TEXT, "a 1\na 5\nb 2\n"),
    "an empty label": lambda: (200, TEXT, 'a{x=""} 7\na{x="1"} 8\n'),
    "times that are none": lambda: (200, TEXT, f"a 1 {stamp(-0.1)}\nb 2 {stamp(3600)}\n"),
    "a histogram": lambda: (200, TEXT, "# TYPE h histogram\n" + HISTOGRAM.replace("1.0", "1") + "a 1\n"),
    "the same as OpenMetrics": lambda: (200, OPENMETRICS, f"# TYPE h histogram\n{HISTOGRAM}# EOF\n"),
    "its end is missing": lambda: (200, OPENMETRICS, "# TYPE a gauge\na 4\n"),
    "nothing": lambda: (200, TEXT, ""),
    "a broken line": lambda: (200, TEXT, "a 1\nbroken line here\n"),
    "odd numbers": lambda: (200, TEXT, "a NaN\nb +Inf\nc -Inf\nd 1e-400"),
    "a redirect without end": lambda: (302, TEXT, ""),
    "no content": lambda: (204, TEXT, ""),
    "labels of the target": lambda: (200, TEXT, 'a{job="own",instance="i"} 1\na{exported_job="e"} 2\n'),
    "a long label": lambda: (200, TEXT, f'a{{l="{"x" * 250}"}} 1\nb 1\n'),
    "many series": lambda: (200, TEXT, "".join(f"m{number} 1\n" for number in range(60))),
    "all is well": lambda: (200, TEXT, "a 1\n"),
}


class Target(ThreadingHTTPServer):
    """Gives `answer`, and counts the requests that it has given it for, by who asks."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = "two series"
        self.asked: Counter[str] = Counter()

    def turn(self, answer: str) -> None:
        self.answer = answer
        self.asked = Counter()


class Handler(BaseHTTPRequestHandler):
    server: Target
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.server.asked  # a turn meanwhile makes this answer count for nothing
        status, kind, body = ANSWERS[self.server.answer]()
        self.send_response(status)
        self.send_header("content-type", kind)
        if status == 302:
            self.send_header("location", "/metrics")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
        asked[self.headers["user-agent"].partition("/")[0]] += 1

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target() as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


JOBS = {
    "plain": "",
    "honoring": "honor_labels: true",
    "timeless": "honor_timestamps: false",
    "limited": "sample_limit: 50, label_value_length_limit: 200, label_limit: 4, follow_redirects: false",
    "small": "body_size_limit: 100B",
}


@pytest.fixture(scope="module")
def both(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Ours and Prometheus, which scrape the same jobs."""
    address = f"127.0.0.1:{target.server_address[1]}"
    config = "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\nscrape_configs:\n" + "".join(
        f"- {{job_name: {name}, static_configs: [{{targets: ['{address}']}}], {keys}}}\n" for name, keys in JOBS.items()
    )
    folder = tmp_path_factory.mktemp("both")
    (folder / "p.yml").write_text(config)
    with (
        ServerProcess.start(folder / "data", ("--config", str(folder / "p.yml"), "--no-self-monitoring")) as ours,
        ServerProcess.start_prometheus(folder / "theirs", config) as theirs,
    ):
        yield ours, theirs


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_comes_of_an_answer(both: tuple[ServerProcess, ServerProcess], target: Target, answer: str) -> None:
    ours, theirs = both
    target.turn(answer)
    eventually(lambda: all(target.asked[name] >= 2 * len(JOBS) for name in ("streamgauge", "Prometheus")))
    eventually(lambda: present(ours) == present(theirs))
    found = present(ours)
    assert {json.loads(series)["job"] for series in found if '"up"' in series} == set(JOBS)


def present(server: ServerProcess) -> dict[str, str]:
    """Values by series, but for times that a scrape took, and what is counted of one that failed."""
    found = server.query('{__name__=~".+", __name__!~"scrape_duration_seconds|scrape_series_added"}')
    down = {
        series["metric"]["job"]
        for series in found
        if series["metric"]["__name__"] == "up" and series["value"][1] == "0"
    }
    values = {}
    for series in found:
        labels = dict(series["metric"])
        if "le" in labels:
            labels["le"] = normal_float(labels["le"].encode()).decode()
        if not (labels["__name__"].startswith("scrape_") and labels["job"] in down):
            values[json.dumps(labels, sort_keys=True)] = series["value"][1]
    return values
