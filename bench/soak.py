"""A real Prometheus writes to a real streamgauge while both are killed at random: is all there that was acknowledged?

    python -m bench.soak --minutes 5

Prometheus scrapes itself, streamgauge and, where it is installed, node exporter every second, and sends everything by
remote write. Between the two stands a proxy that keeps a ledger: each sample of a request that was answered 204. Both
servers are ended by SIGKILL at random moments and started again on what they left. In the end

- every sample of the ledger must be in the store, with its value;
- what Prometheus holds from after its last start must be in the store (what it had not yet sent when it was killed, it
  forgets: its own design);
- no answer may have been other than 204 or "come again", and `streamgauge check` must find nothing.

Prints a verdict; exit code 1 when one of these does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa

from bench.peers import Server, running
from streamgauge.model.arrays import STALE_BITS

SETTLE_SECONDS = 60.0
"""For Prometheus to send what it has left; its longest pause between attempts is 5 s."""
RECENT_MS = 15_000
"""Samples younger than this may still be on their way when Prometheus' own are compared."""
CALM_SECONDS = 30.0
"""At the end, in which nobody is killed: what Prometheus collects in it must all arrive."""
HEAD_SAMPLES = 131_072
"""Small, so that blocks are written and compacted on the way."""

Labels = tuple[tuple[str, str], ...]
_STALE = struct.pack("<Q", STALE_BITS)
_CODEC = pa.Codec("snappy")


@dataclass
class Ledger:
    """What was acknowledged. `samples`: by series, value by time in ms; stale markers, which no query shows, are only
    counted. Filled by the proxy's threads."""

    samples: dict[Labels, dict[int, float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)
    stale: int = 0
    _known: dict[bytes, dict[int, float]] = field(default_factory=dict)  # by the bytes of the labels
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, body: bytes, status: int, text: bytes) -> None:
        """Enter a request and its answer."""
        with self._lock:
            self.statuses[status] += 1
            if status == 204:
                self._enter(body)
            elif status < 500:
                self.refusals.append(f"{status}: {text[:300]!r}")

    def _enter(self, body: bytes) -> None:
        length, _ = _varint(body, 0)
        content = _CODEC.decompress(body, decompressed_size=length, asbytes=True)
        for number, series in _fields(content):
            if number == 1:
                self._enter_series(series)

    def _enter_series(self, series: bytes) -> None:
        labels, samples = [], []
        for number, value in _fields(series):
            if number == 1:
                labels.append(value)
            elif number == 2:
                samples.append(value)
        key = b"\xff\xff".join(labels)
        into = self._known.get(key)
        if into is None:
            pairs = (dict(_fields(label)) for label in labels)
            named = tuple(sorted((pair.get(1, b"").decode(), pair.get(2, b"").decode()) for pair in pairs))
            into = self._known[key] = self.samples.setdefault(named, {})
        for sample in samples:
            bits, moment = _sample(sample)
            if bits == _STALE:
                self.stale += 1
                into.pop(moment, None)
            else:
                into[moment] = struct.unpack("<d", bits)[0]

    def count(self) -> int:
        return sum(map(len, self.samples.values()))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Length-delimited fields of a protobuf message: all that matter here but for a sample's."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        size = 8
        if tag & 7 == 0:
            _, at = _varint(message, at)
            continue
        if tag & 7 == 2:
            size, at = _varint(message, at)
        yield tag >> 3, message[at : at + size]
        at += size


def _sample(message: bytes) -> tuple[bytes, int]:
    """The value's bytes and the time in ms."""
    bits, moment, at = bytes(8), 0, 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag == 0x09:
            bits, at = message[at : at + 8], at + 8
        else:
            moment, at = _varint(message, at)
    return bits, moment


def start_proxy(port: int, ledger: Ledger) -> ThreadingHTTPServer:
    """Passes remote writes on to `port`. A request that is not answered there is answered 503: come again."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            status, text = 503, b"no answer"
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                with contextlib.closing(connection):
                    connection.request("POST", self.path, body, headers)
                    answer = connection.getresponse()
                    status, text = answer.status, answer.read()
            ledger.answered(body, status, text)
            with contextlib.suppress(OSError):  # Prometheus may be gone
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, name="proxy", daemon=True).start()
    return proxy


@contextlib.contextmanager
def node_exporter() -> Iterator[str | None]:
    """A running node exporter's address; None where it is not installed."""
    program = shutil.which("prometheus-node-exporter")
    if program is None:
        yield None
        return
    command = [program, "--web.listen-address=127.0.0.1:0", "--log.format=json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = (json.loads(line) for line in process.stderr)
        address = next(line["address"] for line in lines if "address" in line and not line["address"].endswith(":0"))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address
    finally:
        process.kill()
        process.wait()


def configuration(proxy: int, streamgauge: Server, exporter: str | None) -> str:
    targets = [f"127.0.0.1:{streamgauge.port}", *([exporter] if exporter else [])]
    jobs = [{"job_name": f"job{i}", "static_configs": [{"targets": [target]}]} for i, target in enumerate(targets)]
    queue = {"batch_send_deadline": "500ms", "max_backoff": "1s"}
    return json.dumps(  # which is YAML, too
        {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": jobs,
            "remote_write": [{"url": f"http://127.0.0.1:{proxy}/api/v1/write", "queue_config": queue}],
        }
    )


def scrape_itself(prometheus: Server) -> None:
    """Add Prometheus' own address, which was not known before it started, to what it scrapes."""
    file = prometheus.data.parent / "prometheus.yml"
    config = json.loads(file.read_text())
    config["scrape_configs"].append(
        {"job_name": "itself", "static_configs": [{"targets": [f"127.0.0.1:{prometheus.port}"]}]}
    )
    file.write_text(json.dumps(config))
    prometheus.stop()
    prometheus.restart()


@dataclass
class Kills:
    counts: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)  # seconds from start to ready
    last_prometheus: float = 0.0  # when it was ready again, seconds since the epoch


def torment(servers: list[Server], seconds: float, chance: random.Random) -> Kills:
    """Kill one or both at random moments, and start them again after a pause."""
    kills = Kills(last_prometheus=time.time())
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, chance.uniform(1, 12)))
        victims = chance.choice([servers[:1], servers[:1], servers[1:], servers])
        for victim in victims:
            victim.stop(hard=True)
            kills.counts[victim.name] += 1
        time.sleep(chance.choice([0, 0, 0.5, 3]))
        for victim in victims:
            took = victim.restart()
            kills.slowest[victim.name] = max(kills.slowest.get(victim.name, 0.0), took)
            if victim.name == "prometheus":
                kills.last_prometheus = time.time()
    return kills


def settle(prometheus: Server) -> None:
    """Wait until Prometheus has sent what it had, or for SETTLE_SECONDS."""
    until = time.monotonic() + SETTLE_SECONDS
    begun = time.time()
    behind = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
    while time.monotonic() < until:
        lines = prometheus.get("/metrics").decode().splitlines()
        sent = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{behind}{{")]
        if sent and min(sent) > begun:
            return
        time.sleep(0.2)


def stored(server: Server, metrics: list[str], end: float, seconds: int) -> dict[Labels, dict[int, float]]:
    """All samples of some metrics in the `seconds` before `end`."""
    found: dict[Labels, dict[int, float]] = {}
    for metric in metrics:
        query = f'{{__name__="{metric}"}}[{seconds}s]'
        answer = json.loads(server.get("/api/v1/query", {"query": query, "time": f"{end:.3f}"}))
        for series in answer["data"]["result"]:
            labels = tuple(sorted(series["metric"].items()))
            found[labels] = {round(moment * 1000): float(value) for moment, value in series["values"]}
    return found


def missing(wanted: dict[Labels, dict[int, float]], there: dict[Labels, dict[int, float]]) -> list[str]:
    """A line for each sample of `wanted` that is not `there` with the same value."""
    lines = []
    for labels, samples in wanted.items():
        have = there.get(labels, {})
        for moment, value in samples.items():
            got = have.get(moment)
            if got is None or not (got == value or (math.isnan(got) and math.isnan(value))):
                lines.append(f"{dict(labels)} at {moment}: {value!r} was acknowledged, {got!r} is stored")
    return lines


def names(samples: dict[Labels, dict[int, float]]) -> list[str]:
    return sorted({dict(labels)["__name__"] for labels in samples})


def recent(samples: dict[Labels, dict[int, float]], start: float, end: float) -> dict[Labels, dict[int, float]]:
    low, high = start * 1000, end * 1000
    return {labels: {t: v for t, v in row.items() if low < t < high} for labels, row in samples.items()}


def soak(minutes: float, seed: int) -> bool:
    """Run it; True when all is well."""
    chance = random.Random(seed)
    began = time.time()
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        streamgauge = stack.enter_context(running("streamgauge", ["--head-samples", str(HEAD_SAMPLES)]))
        proxy = start_proxy(streamgauge.port, ledger)
        stack.callback(proxy.shutdown)
        exporter = stack.enter_context(node_exporter())
        config = configuration(proxy.server_address[1], streamgauge, exporter)
        prometheus = stack.enter_context(running("prometheus", config=config))
        scrape_itself(prometheus)
        print(f"streamgauge {streamgauge.version}, prometheus {prometheus.version}, {minutes:g} minutes, seed {seed}")
        kills = torment([streamgauge, prometheus], minutes * 60, chance)
        time.sleep(CALM_SECONDS)
        settle(prometheus)
        return judge(streamgauge, prometheus, ledger, kills, began)


def judge(streamgauge: Server, prometheus: Server, ledger: Ledger, kills: Kills, began: float) -> bool:
    end = time.time()
    seconds = math.ceil(end - began) + 60
    prometheus_names = json.loads(prometheus.get("/api/v1/label/__name__/values"))["data"]
    theirs = recent(
        stored(prometheus, prometheus_names, end, seconds), kills.last_prometheus + 2, end - RECENT_MS / 1000
    )
    prometheus.stop()  # nothing is added to the ledger any more
    ours = stored(streamgauge, sorted({*names(ledger.samples), *prometheus_names}), end + 60, seconds + 60)
    lost = missing(ledger.samples, ours)
    unsent = missing(theirs, ours)
    blocks = json.loads(streamgauge.get("/api/v1/status/inspect"))["data"]["blocks"]
    streamgauge.stop()
    check = subprocess.run(
        [sys.executable, "-m", "streamgauge", "check", str(streamgauge.data)],
        capture_output=True,
        text=True,
        check=False,
    )
    for name, count in sorted(kills.counts.items()):
        print(f"killed and started again: {name} {count} times, ready after at most {kills.slowest[name]:.1f} s")
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(ledger.statuses.items()))
    print(f"answers: {answers}; {ledger.stale} stale markers; {len(blocks)} blocks in the end")
    compared = sum(map(len, theirs.values()))
    print(f"acknowledged: {ledger.count()} samples of {len(ledger.samples)} series; missing: {len(lost)}")
    print(f"in Prometheus since its last start: {compared} samples; not in the store: {len(unsent)}")
    print(f"refused: {len(ledger.refusals)}; check: {check.stdout.strip()}{check.stderr.strip()}")
    for line in [*lost[:10], *unsent[:10], *ledger.refusals[:10]]:
        print(f"  {line}")
    good = not (lost or unsent or ledger.refusals or check.returncode) and ledger.count() > 0 and compared > 0
    print("VERDICT: " + ("nothing that was acknowledged is missing" if good else "FAILED"))
    return good


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    raise SystemExit(0 if soak(arguments.minutes, arguments.seed) else 1)


if __name__ == "__main__":
    main()
