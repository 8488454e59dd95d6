"""The server scrapes real targets, and what it stores is what a real Prometheus stores of them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from streamgauge.testing.server import ServerProcess, eventually
from streamgauge.wire.exposition_text import normal_float

StartServer = Callable[..., ServerProcess]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def targets(server: ServerProcess) -> dict[str, tuple[str, str]]:
    """Health and last error by job."""
    active = server.data_of("/api/v1/targets")["activeTargets"]
    return {target["labels"]["job"]: (target["health"], target["lastError"]) for target in active}


DEBIAN = """\
# Sample config for Prometheus.

global:
  scrape_interval:     15s # Set the scrape interval to every 15 seconds. Default is every 1 minute.
  evaluation_interval: 15s
  external_labels:
      monitor: 'example'

alerting:
  alertmanagers:
  - static_configs:
    - targets: ['localhost:9093']

rule_files:
  # - "first_rules.yml"

scrape_configs:
  - job_name: 'prometheus'
    scrape_interval: 5s
    scrape_timeout: 5s
    static_configs:
      - targets: ['localhost:9090']
  - job_name: node
    static_configs:
      - targets: ['localhost:9100']
"""


def test_the_configuration_that_debian_ships_starts_the_server(start_server: StartServer, tmp_path: Path) -> None:
    shipped = Path("/etc/prometheus/prometheus.yml")
    file = tmp_path / "prometheus.yml"
    file.write_text(shipped.read_text() if shipped.is_file() else DEBIAN)
    server = start_server("--config", str(file))
    eventually(lambda: set(targets(server)) == {"prometheus", "node"})
    assert server.data_of("/api/v1/scrape_pools")["scrapePools"] == ["node", "prometheus"]


def test_a_reload_changes_what_is_scraped(start_server: StartServer, server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "p.yml"
    job = "{job_name: %s, scrape_interval: 1s, static_configs: [{targets: ['127.0.0.1:" + str(server.port) + "']}]}"
    file.write_text(f"scrape_configs: [{job % 'one'}]")
    scraping = start_server("--config", str(file))
    eventually(lambda: targets(scraping) == {"one": ("up", "")})
    file.write_text(f"scrape_configs: [{job % 'one'}, {job % 'two'}]")
    assert scraping.post("/-/reload").status == 200
    eventually(lambda: targets(scraping) == {"one": ("up", ""), "two": ("up", "")})
    file.write_text("scrape_configs: [{job_name: one, scheme: ftp}]")
    refused = scraping.post("/-/reload")
    assert refused.status == 500
    assert '"ftp" is not one of http, https' in refused.text
    assert set(targets(scraping)) == {"one", "two"}
    file.write_text(f"scrape_configs: [{job % 'two'}]")
    assert scraping.post("/-/reload").status == 200
    eventually(lambda: set(targets(scraping)) == {"two"})
    eventually(lambda: not scraping.query('up{job="one"}'))  # its stale marker has come


class Nasty:
    """Answers each connection with the bytes given, the last ones over and over if `forever`."""

    def __init__(self, reply: bytes, forever: bytes = b"") -> None:
        self._reply, self._forever = reply, forever
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.recv(65536)
            connection.sendall(self._reply)
            while self._forever:
                connection.sendall(self._forever)
            if not self._reply:
                connection.recv(1)
        except OSError:
            pass
        connection.close()

    def close(self) -> None:
        self._socket.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n"
NASTY = {  # what is sent, what is sent after it over and over, what is said of it
    "hangs": (b"", b"", "no whole answer within"),
    "streams": (HEAD + b"\r\n", b"a 1\n" * 4096, "the body is larger than"),
    "drips": (HEAD + b"content-length: 9999\r\n\r\na 1\n", b"", "closed in the middle of the answer"),
    "lies": (HEAD + b"content-length: 4\r\n\r\na 1\nb 2\n", b"", "more bytes than it announced"),
    "html": (HEAD.replace(b"plain", b"html") + b"\r\n<html>", b"", "content type text/html"),
    "markup": (HEAD + b"\r\n<html>\n", b"", "line 1: a metric name was expected"),
    "bytes": (HEAD + b'\r\na{b="\xff"} 1\n', b"", "is not UTF-8"),
    "twice": (HEAD + b"\r\na 1\na 2\nb 3\n", b"", "the first of each was stored"),
    "future": (HEAD + b"\r\na 1 9999999999999\nb 3\n", b"", "1 samples were not stored"),
    "file": (b"HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n", b"", "only http and"),
    "nobody": (b"SSH-2.0-x\r\n", b"", "no HTTP answer"),
}
UP = {"twice", "future"}


@pytest.fixture
def nasty() -> Iterator[Callable[[bytes, bytes], int]]:
    """Starts a target that answers so; its port."""
    with ExitStack() as stack:

        def start(reply: bytes, forever: bytes = b"") -> int:
            target = Nasty(reply, forever)
            stack.callback(target.close)
            return target.port

        yield start


def test_bad_targets_are_named_and_do_no_harm(
    start_server: StartServer, server: ServerProcess, tmp_path: Path, nasty: Callable[[bytes, bytes], int]
) -> None:
    file = tmp_path / "p.yml"
    file.touch()
    scraping = start_server("--config", str(file), "--enable-admin-api")

    def redirect(port: int, path: str) -> int:
        return nasty(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:%d%s\r\n\r\n" % (port, path.encode()), b"")

    jobs = [(name, nasty(reply, forever)) for name, (reply, forever, _) in NASTY.items()]
    jobs += [("good", server.port), ("redirected", redirect(server.port, "/metrics"))]
    jobs += [("itself", redirect(scraping.port, "/metrics"))]
    jobs += [("deletes", redirect(scraping.port, "/api/v1/admin/tsdb/delete_series?match[]=up"))]
    file.write_text(
        "global: {scrape_interval: 2s, scrape_timeout: 1s}\nscrape_configs:\n"
        + "".join(
            f"- {{job_name: {name}, body_size_limit: 1MB, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
            for name, port in jobs
        )
    )
    assert scraping.post("/-/reload").status == 200
    eventually(lambda: targets(scraping) and all(health != "unknown" for health, _ in targets(scraping).values()))
    said = targets(scraping)
    for name, (_, _, words) in NASTY.items():
        assert said[name][0] == ("up" if name in UP else "down"), (name, said[name])
        assert words in said[name][1], (name, said[name])
    assert said["good"] == said["redirected"] == said["itself"] == ("up", "")
    assert said["deletes"] == ("down", "the answer was 405 Method Not Allowed"), (
        "a scrape is a GET, which changes nothing"
    )
    assert len(scraping.query('b{job=~"twice|future"} == 3')) == 2
    assert scraping.query('a{job="twice"}')[0]["value"][1] == "1"
    assert not scraping.query('a{job!="twice"}')
    assert {series["metric"]["job"] for series in scraping.query("up == 0")} == {*NASTY, "deletes"} - UP


@pytest.fixture(scope="module")
def exporter() -> Iterator[int]:
    """The port of a node exporter."""
    port = free_port()
    command = ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a VictoriaMetrics."""
    port = free_port()
    folder = tmp_path_factory.mktemp("victoria")
    command = ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


ABOUT_THE_SCRAPE = "scrape_duration_seconds|scrape_series_added"


@pytest.mark.peer("prometheus", "prometheus-node-exporter", "victoria-metrics")
def test_every_series_agrees_with_that_of_a_prometheus(
    start_server: StartServer, tmp_path: Path, exporter: int, victoria: int
) -> None:
    """Both scrape a node exporter, a VictoriaMetrics, and a Prometheus with its federation: the same series come of it,
    of the same types, and what does not change has the same values."""
    assert shutil.which("prometheus")
    with ServerProcess.start_prometheus(tmp_path / "watched", "global: {scrape_interval: 1s}\n") as watched:
        jobs = {"node": exporter, "victoria": victoria, "prometheus": watched.port}
        config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n" + "".join(
            f"- job_name: {name}\n"
            f"  static_configs: [{{targets: ['127.0.0.1:{port}'], labels: {{zone: a}}}}]\n"
            "  relabel_configs: [{source_labels: [__address__], regex: '(.*):.*', target_label: host}]\n"
            "  metric_relabel_configs:\n"
            "  - {source_labels: [__name__], regex: 'go_gc_.*', action: drop}\n"
            "  - {source_labels: [device], regex: '(.)(.*)', target_label: first, replacement: '$1'}\n"
            for name, port in jobs.items()
        )
        file = tmp_path / "p.yml"
        file.write_text(config)
        ours = start_server("--config", str(file))
        with ServerProcess.start_prometheus(tmp_path / "theirs", config) as theirs:
            for one in (ours, theirs):
                eventually(lambda one=one: len(one.query("up == 1")) == 3)  # type: ignore[misc]
            selector = f'{{job=~".+",__name__!~"{ABOUT_THE_SCRAPE}"}}'
            eventually(lambda: series_of(ours, selector) == series_of(theirs, selector))
            found = series_of(ours, selector)
            assert len(found) > 500
            assert {dict(labels)["job"] for labels in found} == set(jobs)
            fixed = (
                '{__name__=~"node_uname_info|node_boot_time_seconds|prometheus_build_info|up|node_memory_MemTotal.*"}'
            )
            assert values_of(ours, fixed) == values_of(theirs, fixed)
            mine = ours.data_of("/api/v1/metadata")
            for metric, (known,) in theirs.data_of("/api/v1/metadata").items():
                if not metric.startswith("go_gc_"):
                    assert mine[metric][0] == known, metric


Labels = tuple[tuple[str, str], ...]


def series_of(server: ServerProcess, selector: str) -> set[Labels]:
    """Prometheus 2 leaves bounds of buckets and quantiles as targets spell them: here they are as in Prometheus 3."""
    return {
        tuple(
            sorted({**labels, **{name: normal(labels[name]) for name in ("le", "quantile") if name in labels}}.items())
        )
        for labels in (series["metric"] for series in server.query(selector))
    }


def normal(bound: str) -> str:
    return normal_float(bound.encode()).decode()


def values_of(server: ServerProcess, selector: str) -> dict[Labels, str]:
    return {tuple(sorted(series["metric"].items())): series["value"][1] for series in server.query(selector)}
