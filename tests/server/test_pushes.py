"""Pushes end to end: what the reference's programs send is stored, found and given on, restarts included."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from streamgauge.testing import requests
from streamgauge.testing.programs import find_program
from streamgauge.testing.pushes import HEADERS, family, labels, upload
from streamgauge.testing.server import Response, ServerProcess, eventually
from streamgauge.testing.slow_client import drip
from streamgauge.wire import metric_family_text

TOKEN = "a token of ours"
CONFIG = f"""
federation:
  whitelist: '{{}}'
  ratelimit: 0s
  push-tokens:
    - name: me
      sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}
"""


def start(folder: Path, more: str = "") -> ServerProcess:
    file = folder / "streamgauge.yml"
    file.write_text(CONFIG + more)
    return ServerProcess.start(folder / "data", ["--config", str(file), "--no-self-monitoring"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start(tmp_path_factory.mktemp("pushes")) as server:
        yield server


def cluster_token(server: ServerProcess, cluster: str) -> str:
    answer = server.request(
        "POST", f"/authorize?id={urllib.parse.quote(cluster)}", headers={"authorization": f"Bearer {TOKEN}"}
    )
    token: str = json.loads(answer.body)["token"]
    return token


def push(server: ServerProcess, cluster: str, now: int, *jobs: str) -> Response:
    body = upload([family("up", [(labels(cluster, job=job), 1.0, now) for job in jobs])])
    headers = {**HEADERS, "authorization": f"Bearer {cluster_token(server, cluster)}"}
    return server.request("POST", "/upload", body, headers)


def federated(server: ServerProcess, cluster: str, more: str = "") -> list[str]:
    lines = server.get(f"/federate?match[]={{_id=%22{cluster}%22}}{more}").text.splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_a_push_is_seen_by_the_next_query_and_what_ended_is_not_even_after_a_restart(tmp_path: Path) -> None:
    now = int(time.time() * 1000) - 60_000
    with start(tmp_path) as server:
        assert push(server, "c", now, "a", "b", "c").status == 200
        assert server.value('count(up{_id="c"})', now / 1000) == 3
        assert push(server, "c", now + 10_000, "a", "b").status == 200
        for _ in range(2):  # whoever reads takes it from nobody
            assert federated(server, "c") == [f'up{{_id="c",instance="",job="{job}"}} 1' for job in "ab"]
        assert server.value('count(up{_id="c"})', now / 1000 + 10) == 2
    with start(tmp_path) as server:
        eventually(lambda: server.metric("streamgauge_push_live_series") == 2)
        assert federated(server, "c", "&timestamps=true") == [
            f'up{{_id="c",instance="",job="{job}"}} 1 {now + 10_000}' for job in "ab"
        ]
        assert push(server, "c", now + 20_000, "a").status == 200
        assert federated(server, "c") == ['up{_id="c",instance="",job="a"} 1']


@pytest.mark.parametrize("name", ["../../x", "/x", "c\n# x 1\r\nx: y", 'c"} 1', "cafe\u0301", "caf\u00e9", "\x00"])
def test_an_id_is_no_path_and_no_line_but_a_value(server: ServerProcess, name: str) -> None:
    now = int(time.time() * 1000)
    before = sorted(server.data.parent.iterdir())
    assert push(server, name, now, "a").status == 200
    found = server.query(f"count by (_id) (up{{_id={json.dumps(name)}}})", now / 1000)
    assert [(series["metric"], series["value"][1]) for series in found] == [({"_id": name}, "1")]
    selector = urllib.parse.urlencode({"match[]": f"{{_id={json.dumps(name)}}}"})
    (family,) = metric_family_text.decode_now(server.get(f"/federate?{selector}").body)
    assert [dict(metric.labels)["_id"] for metric in family.metrics] == [name]
    assert sorted(server.data.parent.iterdir()) == before


def test_a_cluster_that_is_silent_is_gone(tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    with start(tmp_path, "  ttl: 2s\n") as server:
        assert push(server, "c", now, "a", "b").status == 200
        assert server.value('count(up{_id="c"})', now / 1000 + 1) == 2
        eventually(lambda: server.metric('streamgauge_push_stale_markers_total{cause="silent"}') == 2)
        eventually(lambda: federated(server, "c") == [])  # the markers are on their way to the disk
        assert server.value('count(up{_id="c"})', now / 1000 + 1) == 2
        assert server.query('up{_id="c"}', now / 1000 + 2) == []
        assert server.metric("streamgauge_push_clusters") == 0


def test_a_remote_write_is_stored_beside_uploads(server: ServerProcess) -> None:
    now = int(time.time() * 1000)
    text = json.dumps({"authorization_token": TOKEN, "cluster_id": "r"}).encode()
    credentials = {"authorization": f"Bearer {base64.b64encode(text).decode()}"}
    for message, encode in ((requests.V1, requests.v1), (requests.V2, requests.v2)):
        series = [requests.Series({"__name__": "w", "_id": "r", "message": message}, [(now, 7.0)])]
        headers = {**requests.headers(message), **credentials}
        answer = server.request("POST", "/metrics/v1/receive", requests.snappy(encode(series)), headers)
        assert (answer.status, answer.body) == (200, b"")
    assert server.value('sum(w{_id="r"})', now / 1000) == 14
    foreign = [requests.Series({"__name__": "w", "_id": "other"}, [(now, 7.0)])]
    body = requests.snappy(requests.v1(foreign))
    headers = {**requests.headers(), **credentials}
    assert server.request("POST", "/metrics/v1/receive", body, headers).status == 422
    assert server.query('w{_id="other"}', now / 1000) == []


def test_a_cluster_that_sends_a_byte_a_second_keeps_nothing_and_holds_nobody_up(server: ServerProcess) -> None:
    slow = f"Bearer {cluster_token(server, 'slow')}"
    text = json.dumps({"authorization_token": TOKEN, "cluster_id": "slow"}).encode()
    receives = f"Bearer {base64.b64encode(text).decode()}"
    openings = [
        opening(server, "/upload", {**HEADERS, "authorization": slow}),
        opening(server, "/metrics/v1/receive", {**requests.headers(), "authorization": receives}),
    ]
    done: list[list[bytes]] = []
    dripping = threading.Thread(target=lambda: done.append(drip(server, openings * 10)))
    dripping.start()
    now = int(time.time() * 1000)
    for number in range(3):
        assert push(server, "quick", now + number, "a").status == 200
    dripping.join()
    (answers,) = done
    assert len(answers) == 20
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert server.metric("streamgauge_ingest_inflight_bytes") == 0
    assert push(server, "slow", now, "a").status == 200


def opening(server: ServerProcess, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Content-Length: 100000"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


# ---- the reference's programs ---------------------------------------------------------------------------------------


def program(name: str) -> str:
    """Nobody can install the reference's programs from a package: without them tests are skipped everywhere."""
    found = find_program(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_the_references_client_pushes_what_it_scrapes(server: ServerProcess) -> None:
    client = program("telemeter-client")
    now = int(time.time() * 1000)
    scraped = [
        requests.Series({"__name__": "scraped_total", "job": f"j{number}", "kind": "x"}, [(now - number, number / 3)])
        for number in range(40)
    ]
    assert server.write(scraped).status == 204
    url = f"http://127.0.0.1:{server.port}"
    command = [client, f"--from={url}", f"--to={url}", f"--to-token={TOKEN}", "--id=ref", "--listen="]
    command += ['--match={__name__="scraped_total",_id=""}', "--interval=1s", "--rename=scraped_total=pushed_total"]
    taken = 'streamgauge_ingest_requests_total{code="200",source="upload"}'
    before = server.metric(taken)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: server.metric(taken) >= before + 2 or process.poll() is not None)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    for number in (0, 1, 39):
        found = server.samples(f'pushed_total{{_id="ref",job="j{number}",kind="x"}}', now / 1000 + 1)
        assert [(time, float(value)) for time, value in found] == [(now - number, number / 3)]
    assert server.value('count(pushed_total{_id="ref"})', now / 1000) == 40


def test_the_references_load_generator_is_served(server: ServerProcess, tmp_path: Path) -> None:
    benchmark = program("telemeter-benchmark")
    file = tmp_path / "metrics.txt"
    now = int(time.time() * 1000)
    file.write_text("".join(f'load{{n="{number}"}} {number} {now}\n' for number in range(50)))
    url = f"http://127.0.0.1:{server.port}"
    command = [
        benchmark,
        f"--metrics-file={file}",
        "--workers=20",
        "--interval=1s",
        f"--to={url}",
        f"--to-token={TOKEN}",
    ]
    process = subprocess.Popen([*command, "--listen=127.0.0.1:0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    counted = 'count by (_id) (load{n="7"})'
    try:
        eventually(lambda: len(server.query(counted, time.time())) >= 20 or process.poll() is not None)
        assert process.poll() is None, process.communicate()
    finally:
        process.kill()
        process.communicate()
    clusters = [series["metric"]["_id"] for series in server.query(counted, time.time())]
    assert all(re.fullmatch("[0-9a-f-]{36}", cluster) for cluster in clusters)
