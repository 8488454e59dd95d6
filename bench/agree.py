"""A real Prometheus and streamgauge scrape the same targets for an hour: does every sample agree?

    python -m bench.agree --minutes 60

The targets are a node exporter, a Prometheus and a VictoriaMetrics. Two servers never scrape at the same moment, and
what they scrape changes: so a proxy fetches each exposition once and gives the same one to both, the first to the first
scrape of each, the second to the second, and so on. After the last one it refuses, so that what ends becomes stale.

Then the two answer for every series with all samples of its time. Of both the series must be the same, and of each the
values, in order, NaN for NaN. Of what the servers say about the scrapes themselves (`up` and its companions) durations
are left out. Prints a verdict; exit code 1 when something differs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.peers import Server, available, running
from streamgauge.wire.exposition_text import normal_float

INTERVAL_SECONDS = 15
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
"""What Prometheus 2.42 asks for; both get what the target answers to that."""
DURATIONS = {"scrape_duration_seconds"}
NEEDED = ("prometheus", "victoria-metrics", "prometheus-node-exporter")

Labels = tuple[tuple[str, str], ...]
Exposition = tuple[str, bytes]


@dataclass
class Relay:
    """Gives the n-th exposition of each target to the n-th scrape of each client. Used by the proxy's threads."""

    ports: Mapping[str, int]  # of the targets
    scrapes: int  # after which every client is refused
    _given: dict[tuple[str, str], int] = field(default_factory=dict)  # by client and target
    _fetched: dict[tuple[str, int], Exposition] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, client: str, target: str) -> Exposition | None:
        with self._lock:
            number = self._given.get((client, target), 0)
            self._given[client, target] = number + 1
            if number >= self.scrapes:
                return None
            known = self._fetched.pop((target, number), None)
            if known is None:
                known = self._fetched[target, number] = self._fetch(target)
            return known

    def _fetch(self, target: str) -> Exposition:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[target], timeout=10)
        connection.request("GET", "/metrics", headers={"Accept": ACCEPT})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.headers["Content-Type"], body

    @property
    def finished(self) -> bool:
        """Whether both clients were refused by every target."""
        with self._lock:
            return sum(given > self.scrapes for given in self._given.values()) == 2 * len(self.ports)


@contextmanager
def proxy(relay: Relay) -> Iterator[int]:
    """The port of a proxy: /<target> of `relay`, clients told apart by their User-Agent."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            client = (self.headers["User-Agent"] or "").partition("/")[0].lower()
            exposition = relay.next(client, self.path.strip("/"))
            kind, body = exposition or ("text/plain", b"the comparison has ended\n")
            self.send_response(200 if exposition else 503)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def node_exporter() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def configuration(port: int, targets: Mapping[str, int]) -> str:
    jobs = "".join(
        f"- job_name: {name}\n  metrics_path: /{name}\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        for name in targets
    )
    seconds = INTERVAL_SECONDS
    return f"global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s}}\nscrape_configs:\n{jobs}"


def metric_names(server: Server, job: str) -> list[str]:
    answer = json.loads(server.get("/api/v1/label/__name__/values", {"match[]": f'{{job="{job}"}}'}))
    return [name for name in answer["data"] if name not in DURATIONS]


def samples(server: Server, job: str, name: str, minutes: int) -> dict[Labels, list[str]]:
    """Every value of the metric, in order, by series."""
    query = f'{{__name__="{name}",job="{job}"}}[{minutes}m]'
    answer = json.loads(server.get("/api/v1/query", {"query": query}))
    return {
        _labels(series["metric"]): [normal_float(value.encode()).decode() for _, value in series["values"]]
        for series in answer["data"]["result"]
    }


def _labels(labels: dict[str, str]) -> Labels:
    """Prometheus 2 leaves bounds of buckets and quantiles as targets spell them: here they are as in Prometheus 3."""
    bounds = {name: normal_float(labels[name].encode()).decode() for name in ("le", "quantile") if name in labels}
    return tuple(sorted({**labels, **bounds}.items()))


@dataclass
class Verdict:
    series: int = 0
    samples: int = 0
    differences: list[str] = field(default_factory=list)


def compare(ours: Server, theirs: Server, job: str, relay: Relay, minutes: int, verdict: Verdict) -> None:
    mine, other = metric_names(ours, job), metric_names(theirs, job)
    for name in sorted({*mine} ^ {*other}):
        verdict.differences.append(f"{job}: {name} is only in {ours.name if name in mine else theirs.name}")
    for name in sorted({*mine} & {*other}):
        left, right = samples(ours, job, name, minutes), samples(theirs, job, name, minutes)
        if name == "up" or name.startswith("scrape_"):  # these go on after the last exposition
            left, right = _first(left, relay.scrapes), _first(right, relay.scrapes)
        verdict.series += len(left)
        verdict.samples += sum(map(len, left.values()))
        for labels in {*left} | {*right}:
            if left.get(labels) != right.get(labels):
                verdict.differences.append(f"{job}: {dict(labels)}: {_difference(left.get(labels), right.get(labels))}")


def _first(series: dict[Labels, list[str]], count: int) -> dict[Labels, list[str]]:
    return {labels: values[:count] for labels, values in series.items()}


def _difference(left: list[str] | None, right: list[str] | None) -> str:
    if left is None or right is None:
        return "only in Prometheus" if left is None else "only in streamgauge"
    at = next((at for at, (one, two) in enumerate(zip(left, right, strict=False)) if one != two), None)
    if at is None:
        return f"{len(left)} samples, in Prometheus {len(right)}"
    return f"sample {at} is {left[at]}, in Prometheus {right[at]}"


def run(minutes: int) -> Verdict:
    scrapes = minutes * 60 // INTERVAL_SECONDS
    with ExitStack() as stack:
        targets = {
            "node": stack.enter_context(node_exporter()),
            "prometheus": stack.enter_context(running("prometheus")).port,
            "victoria": stack.enter_context(running("victoria-metrics")).port,
        }
        relay = Relay(targets, scrapes)
        config = configuration(stack.enter_context(proxy(relay)), targets)
        folder = Path(tempfile.mkdtemp(prefix="bench-agree-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "prometheus.yml").write_text(config)
        theirs = stack.enter_context(running("prometheus", config=config))
        ours = stack.enter_context(running("streamgauge", ["--config", f"{folder}/prometheus.yml"]))
        print(f"{ours.name} {ours.version} beside {theirs.name} {theirs.version}: {scrapes} scrapes", flush=True)
        while not relay.finished:
            time.sleep(1)
        time.sleep(2)  # for the last answers to be stored
        verdict = Verdict()
        for job in targets:
            compare(ours, theirs, job, relay, minutes + 10, verdict)
        return verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.agree", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=60)
    arguments = parser.parse_args()
    if missing := [name for name in NEEDED if not available(name)]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    verdict = run(arguments.minutes)
    for difference in verdict.differences[:50]:
        print(difference)
    print(f"{verdict.series} series, {verdict.samples} samples, {len(verdict.differences)} differences")
    return 1 if verdict.differences or not verdict.series else 0


if __name__ == "__main__":
    sys.exit(main())
