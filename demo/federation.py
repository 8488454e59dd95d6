"""Push federation from end to end, on this machine: `make demo-federation`.

Two Prometheus servers that nobody outside may scrape, each with a node exporter; a federation client beside each; one
streamgauge that they push to; and one Prometheus that scrapes everything from it. The server is killed for a while.
Then what each of them holds is compared. With --from it is done for a Prometheus that is there already.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from demo.checks import PATIENCE, Checks, free_port, say, until
from streamgauge.federate.transforms import Transforms
from streamgauge.testing.programs import find_program
from streamgauge.testing.server import ServerProcess
from streamgauge.wire import metric_family_text
from streamgauge.wire.metric_family import samples_of

INTERVAL = 5
"""Seconds from push to push; the usual 4m30s would make this take an hour."""
SCRAPES = 2
"""Seconds from scrape to scrape of the Prometheus servers."""
MATCH = '{__name__=~"up|node_load1|node_cpu_seconds_total|node_network_receive_bytes_total"}'
EXPORTER = "prometheus-node-exporter"

Labels = frozenset[tuple[str, str]]
Points = dict[int, str]
"""Values, as text, by time in ms."""


@dataclass
class Cluster:
    """A Prometheus that cannot be reached from outside. token: for reading it."""

    name: str
    url: str
    token: str = ""
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def transforms(self) -> Transforms:
        return Transforms({}, {"ALERTS": "alerts"}, frozenset({"instance"}), self.salt)


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="streamgauge-demo-") as name, ExitStack() as stack:
        folder = Path(name)
        clusters = _own(options) if options.source else _made(folder, stack)
        return _run(folder, clusters, options, stack)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outage", type=float, default=60, help="seconds that the server is away (60)")
    parser.add_argument("--from", dest="source", default="", help="URL of a Prometheus of yours")
    parser.add_argument("--token", default="", help="bearer token to read it with")
    parser.add_argument("--match", default=MATCH, help=f"what to take from each ({MATCH})")
    options = parser.parse_args()
    for program in ("prometheus", *(() if options.source else (EXPORTER,))):
        if find_program(program) is None:
            parser.error(f"{program} is not installed: apt-get install prometheus prometheus-node-exporter")
    return options


def _own(options: argparse.Namespace) -> list[Cluster]:
    return [Cluster("yours", options.source.rstrip("/"), options.token)]


def _made(folder: Path, stack: ExitStack) -> list[Cluster]:
    say("Two clusters, east and west, each a node exporter and a Prometheus that only this machine reaches.")
    clusters = []
    for name in ("east", "west"):
        exporter = stack.enter_context(_exporter())
        jobs = {"node": {"static_configs": [{"targets": [exporter]}]}}
        prometheus = stack.enter_context(ServerProcess.start_prometheus(folder / name, _prometheus_config(jobs)))
        clusters.append(Cluster(name, f"http://127.0.0.1:{prometheus.port}"))
        print(f"  {name}: {clusters[-1].url} scrapes {exporter} every {SCRAPES} s")
    return clusters


def _run(folder: Path, clusters: Sequence[Cluster], options: argparse.Namespace, stack: ExitStack) -> int:
    say("One streamgauge, which takes pushes of whoever has a token.")
    port, config = free_port(), _server_config(folder, clusters)
    arguments = ["--listen", f"127.0.0.1:{port}", "--config", str(config)]
    server = stack.enter_context(ServerProcess.start(folder / "data", arguments, fresh=True))
    url = f"http://127.0.0.1:{port}"
    print(f"  {url}")

    say(f"A client beside each cluster, which pushes every {INTERVAL} s and hashes the label instance.")
    clients = [stack.enter_context(_client(folder, cluster, url, options.match)) for cluster in clusters]
    for cluster, client in zip(clusters, clients, strict=True):
        until(partial(_pushed, url, cluster.name), f"the first push of {cluster.name}", client.output)
        print(f"  {cluster.name} has pushed")
    jobs = {
        "everything": {
            "honor_labels": True,
            "metrics_path": "/federate",
            "params": {"match[]": ['{_id!=""}']},
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
    }
    central = stack.enter_context(ServerProcess.start_prometheus(folder / "central", _prometheus_config(jobs)))
    print(f"  a central Prometheus, http://127.0.0.1:{central.port}, scrapes {url}/federate")

    say(f"The server is killed, and away for {options.outage:g} s.")
    away = time.time()
    server.kill()
    threading.Event().wait(options.outage)
    back = time.time()
    waiting = [_metric(client, "federate_buffer_batches") for client in clients]
    print(f"  batches that wait on the clients' disks: {', '.join(f'{each:g}' for each in waiting)}")
    stack.enter_context(ServerProcess.start(folder / "data", arguments, fresh=True))
    print("  it is back")
    for client in clients:
        until(partial(_has_pushed_all, client), "what waited to be pushed", client.output)
    lost = [_metric_sum(client, "federate_lost_samples_total") for client in clients]
    for client in clients:
        client.stop()  # so that nothing changes any more while it is compared
    threading.Event().wait(3 * SCRAPES)  # two scrapes of the central one

    say("What each of them holds:")
    checks = Checks()
    checks.check(not any(lost), "no client has given up a sample")
    for cluster in clusters:
        _compare_with_source(checks, url, cluster, options.match, away, back)
    _compare_with_central(checks, url, f"http://127.0.0.1:{central.port}")
    return checks.end()


# ---- what runs ------------------------------------------------------------------------------------------------------


@contextmanager
def _exporter() -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    command = [EXPORTER, f"--web.listen-address={address}", "--collector.disable-defaults"]
    command += [f"--collector.{name}" for name in ("cpu", "loadavg", "netdev")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _client(folder: Path, cluster: Cluster, url: str, match: str) -> Iterator[ServerProcess]:
    """`streamgauge federate`, once it listens."""
    words = {
        "from": cluster.url,
        "from-token": cluster.token,
        "to": url,
        "to-token-file": str(folder / f"{cluster.name}.token"),
        "id": cluster.name,
        "match": match,
        "anonymize-labels": "instance",
        "anonymize-salt": cluster.salt,
        "interval": f"{INTERVAL}s",
        "limit-bytes": "8MB",
        "buffer": str(folder / f"{cluster.name}.buffer"),
        "listen": "127.0.0.1:0",
    }
    file = folder / f"{cluster.name}.yml"
    file.write_text(json.dumps(words))  # which is YAML; a token on the command line could be seen by others
    command = [sys.executable, "-m", "streamgauge", "federate", "--config", str(file)]
    with ServerProcess(command, folder) as client:
        client.port = int(client.await_line("listening on http://").rpartition(":")[2])
        yield client


def _server_config(folder: Path, clusters: Sequence[Cluster]) -> Path:
    tokens = []
    for cluster in clusters:
        file = folder / f"{cluster.name}.token"
        file.write_text(secrets.token_hex(32))
        tokens.append({"name": cluster.name, "file": str(file), "clusters": [cluster.name]})
    section = {"whitelist": ["{}"], "ratelimit": f"{INTERVAL}s", "push-tokens": tokens, "limit-bytes": "16MB"}
    config = folder / "streamgauge.yml"
    config.write_text(json.dumps({"federation": section}))
    return config


def _prometheus_config(jobs: Mapping[str, Mapping[str, Any]]) -> str:
    scrapes = [{"job_name": name, **job} for name, job in jobs.items()]
    return json.dumps({"global": {"scrape_interval": f"{SCRAPES}s"}, "scrape_configs": scrapes})


# ---- what is asked --------------------------------------------------------------------------------------------------


def _query(url: str, expression: str, token: str = "") -> list[Any]:
    """The result of an instant query by the API that all of these have."""
    form = urllib.parse.urlencode({"query": expression}).encode()
    request = urllib.request.Request(f"{url}/api/v1/query", form)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        result: list[Any] = json.load(answer)["data"]["result"]
        return result


def _ranges(url: str, selector: str, token: str = "") -> dict[Labels, Points]:
    """Every sample of the last hours, as it is stored."""
    return {
        frozenset(series["metric"].items()): {round(float(at) * 1000): value for at, value in series["values"]}
        for series in _query(url, f"{selector}[2h]", token)
    }


def _pushed(url: str, name: str) -> bool:
    return bool(_query(url, f'{{_id="{name}"}}'))


def _has_pushed_all(client: ServerProcess) -> bool:
    return _metric(client, "federate_buffer_batches") == 0


def _metric(client: ServerProcess, name: str) -> float:
    return client.metric(name)


def _metric_sum(client: ServerProcess, name: str) -> float:
    return client.metric_sum(name)


# ---- what is compared -----------------------------------------------------------------------------------------------


def _compare_with_source(checks: Checks, url: str, cluster: Cluster, match: str, away: float, back: float) -> None:
    ours = _ranges(url, f'{{_id="{cluster.name}"}}')
    theirs: dict[Labels, Points] = {}
    hidden = set()
    hashes = cluster.transforms
    for labels, points in _ranges(cluster.url, match, cluster.token).items():
        plain = dict(labels)
        hidden.add(plain.get("instance", ""))
        theirs[_as_pushed(plain, hashes, cluster.name)] = points
    samples = sum(map(len, ours.values()))
    different = [
        (labels, at)
        for labels, points in ours.items()
        for at, value in points.items()
        if float(theirs.get(labels, {}).get(at, "nan")) != float(value) and value != "NaN"
    ]
    what = f"{cluster.name}: {samples} samples of {len(ours)} series equal those of its Prometheus"
    checks.check(
        samples > 0 and not different, what + (f"; not {len(different)}, such as {different[0]}" if different else "")
    )
    missing = theirs.keys() - ours.keys()
    checks.check(
        not missing,
        f"{cluster.name}: no series of its Prometheus is missing" + (f" but {len(missing)}" if missing else ""),
    )
    moments: dict[tuple[str, ...], set[int]] = {}
    for labels, points in ours.items():
        moments.setdefault(_target(labels), set()).update(points)
    lost = [
        (labels, at)
        for labels, points in theirs.items()
        for at in moments.get(_target(labels), set())
        if at in points and at not in ours.get(labels, {})
    ]
    what = f"{cluster.name}: of each moment that was pushed every series is there"
    checks.check(not lost, what + (f"; not {len(lost)}, such as {lost[0]}" if lost else ""))
    times = sorted({at for points in ours.values() for at in points if away * 1000 <= at <= back * 1000})
    expected = int((back - away) / INTERVAL) - 1
    checks.check(
        len(times) >= expected, f"{cluster.name}: {len(times)} moments of the outage are there, of {expected} at least"
    )
    everything = json.dumps([sorted(labels) for labels in ours])
    shown = sorted(value for labels in ours for name, value in labels if name == "instance")
    leaked = sorted(value for value in hidden if value and value in everything)
    checks.check(
        bool(shown) and not leaked,
        f"{cluster.name}: instance is {shown[0] if shown else '-'}, and never {', '.join(sorted(hidden - {''})[:3])}",
    )


def _target(labels: Labels) -> tuple[str, ...]:
    """Whose scrapes a series comes from: what these give has one time."""
    return tuple(value for name, value in sorted(labels) if name in ("instance", "job"))


def _as_pushed(labels: dict[str, str], transforms: Transforms, name: str) -> Labels:
    """The labels that a series of an isolated Prometheus should have outside."""
    hashed = {key: transforms.hashed(value) if key in transforms.anonymize else value for key, value in labels.items()}
    metric = transforms.renames.get(hashed["__name__"], hashed["__name__"])
    return frozenset({**hashed, "__name__": metric, "_id": name}.items())


def _compare_with_central(checks: Checks, url: str, central: str) -> None:
    question = urllib.parse.urlencode({"match[]": '{_id!=""}'})
    with urllib.request.urlopen(f"{url}/federate?{question}", timeout=PATIENCE) as answer:
        families = metric_family_text.decode_now(answer.read())
    given: dict[Labels, float] = {}
    for family in families:
        for sample in samples_of(family):
            pairs = [("__name__", sample.name), *((key, value or "") for key, value in sample.labels)]
            given[frozenset((key, value) for key, value in pairs if value)] = sample.value
    held = {frozenset(series["metric"].items()): float(series["value"][1]) for series in _query(central, '{_id!=""}')}
    checks.check(
        bool(given) and held == given,
        f"the central Prometheus holds {len(held)} series, and /federate gives {len(given)}: the same values",
    )


if __name__ == "__main__":
    sys.exit(main())
