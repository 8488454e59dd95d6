"""A real Prometheus and its promtool against the real server."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge.testing.requests import V2, Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually

pytestmark = [pytest.mark.peer("prometheus"), pytest.mark.peer("promtool")]


def now() -> int:
    """In ms. Federation shows samples of the last five minutes, and a run of all tests takes longer than that."""
    return int(time.time() * 1000)


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.fixture(scope="module")
def sender(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A Prometheus that scrapes us and our federation every second and writes what it has to us."""
    labels = {"__name__": "federated_total", "job": "away", "größe": 'a "quoted\\" \n value'}
    assert server.write([Series(labels, [(now(), 42.0)], metadata=("counter", "Federated.", ""))], V2).status == 204
    config = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{replica: one}}}}
scrape_configs:
- job_name: streamgauge
  static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]
- job_name: federation
  honor_labels: true
  metrics_path: /federate
  params: {{"match[]": ['federated_total{{"größe"!=""}}', 'nothing']}}
  static_configs: [{{targets: ["127.0.0.1:{server.port}"]}}]
remote_write:
- url: {server.url}/api/v1/write
  queue_config: {{batch_send_deadline: 100ms}}
  metadata_config: {{send_interval: 1s}}
"""
    folder: Path = tmp_path_factory.mktemp("sender")
    with ServerProcess.start_prometheus(folder, config) as running:
        yield running


def test_what_prometheus_scrapes_appears(server: ServerProcess, sender: ServerProcess) -> None:
    """Every series that it has, with its external labels, and the very same samples."""
    selector = '{job="streamgauge"}'
    eventually(lambda: server.query(f"count_over_time(up{selector}[1m]) > 3"))
    names = set(server.get("/api/v1/label/__name__/values", {"match[]": selector}).json()["data"])
    assert names >= {"up", "scrape_duration_seconds", "process_cpu_seconds_total", "streamgauge_http_connections"}
    (up,) = server.query(f"up{selector}")
    assert up["metric"]["replica"] == "one"
    end = up["value"][0] - 1  # what is younger may not have been sent yet
    (ours,) = server.query(f"process_cpu_seconds_total{selector}[1m]", end)
    (theirs,) = sender.query(f"process_cpu_seconds_total{selector}[1m]", end)
    assert ours["values"] == theirs["values"]
    assert len(ours["values"]) >= 2
    failed = sender.metric_sum("prometheus_remote_storage_samples_failed_total")
    dropped = sender.metric_sum("prometheus_remote_storage_samples_dropped_total")
    assert (failed, dropped) == (0, 0)


def test_its_metadata_arrives(server: ServerProcess, sender: ServerProcess) -> None:
    eventually(lambda: "process_cpu_seconds_total" in server.data_of("/api/v1/metadata"))
    (known,) = server.data_of("/api/v1/metadata")["process_cpu_seconds_total"]
    assert (known["type"], known["help"]) == ("counter", "Total user and system CPU time spent in seconds.")


def test_it_scrapes_our_federation(server: ServerProcess, sender: ServerProcess) -> None:
    """Of the label names it takes no others than identifiers, as every scraper before Prometheus 3."""
    eventually(lambda: sender.query('up{job="federation"}'))
    targets = {target["labels"]["job"]: target for target in sender.data_of("/api/v1/targets")["activeTargets"]}
    assert targets["streamgauge"]["health"] == "up", targets["streamgauge"]["lastError"]
    assert targets["federation"]["health"] == "up", targets["federation"]["lastError"]
    (found,) = sender.query("federated_total")
    assert found["value"][1] == "42"
    assert found["metric"] == {"__name__": "federated_total", "job": "away", "gr__e": 'a "quoted\\" \n value'}


def test_our_federation_keeps_names_for_those_who_take_them(server: ServerProcess) -> None:
    moment = now()
    assert server.write([Series({"__name__": "größe.in", "ort\n": "hier"}, [(moment, 1.0)])]).status == 204
    selector = {"match[]": '{"größe.in"}'}
    three = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4"
    answer = server.get("/federate", selector, {"accept": three})
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
    assert answer.text.splitlines() == [
        '# TYPE "größe.in" untyped',
        f'{{"größe.in",instance="","ort\\n"="hier"}} 1 {moment}',
    ]
    answer = server.get("/federate", selector, {"accept": "text/plain;version=0.0.4"})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.splitlines() == ["# TYPE gr__e_in untyped", f'gr__e_in{{instance="",ort_="hier"}} 1 {moment}']


def test_promtool_checks_our_metrics(server: ServerProcess) -> None:
    server.write([Series({"__name__": "linted_total", "a": "b"}, [(now(), math.nan)])])
    done = promtool("check", "metrics", stdin=server.get("/metrics").text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    federated = server.get("/federate", {"match[]": '{__name__=~"linted_total|federated_total"}'})
    assert federated.headers["content-type"].startswith("text/plain; version=0.0.4")
    done = promtool("check", "metrics", stdin=federated.text)
    assert done.returncode == 3, federated.text
    assert set(done.stderr.splitlines()) == {  # which federation does not carry
        "federated_total no help text",
        "linted_total no help text",
    }


def test_promtool_queries(server: ServerProcess) -> None:
    moment = now() // 1000
    series = [Series({"__name__": "asked", "i": str(i)}, [(moment * 1000 - 137, float(i))]) for i in range(3)]
    assert server.write(series).status == 204
    done = promtool("query", "instant", f"--time={moment}", server.url, "asked > 0")
    assert done.stdout.splitlines() == [f'asked{{i="1"}} => 1 @[{moment}]', f'asked{{i="2"}} => 2 @[{moment}]']
    span = [f"--start={moment}", f"--end={moment + 2}", "--step=1s"]
    done = promtool("query", "range", *span, server.url, "sum(asked)")
    assert done.stdout.splitlines() == ["{} =>", *(f"3 @[{moment + i}]" for i in range(3))]
    done = promtool("query", "series", "--match=asked", f"--start={moment - 1}", f"--end={moment}", server.url)
    assert sorted(done.stdout.splitlines()) == [f'{{__name__="asked", i="{i}"}}' for i in range(3)]
    done = promtool("query", "labels", server.url, "i")
    assert {"0", "1", "2"} <= set(done.stdout.splitlines())
    done = promtool("query", "instant", server.url, "asked +")
    assert done.returncode == 1
    assert "bad_data: 1:8: parse error: unexpected end of input" in done.stderr
