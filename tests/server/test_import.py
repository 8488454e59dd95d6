"""`streamgauge import` as one types it: real files, real servers, real interruptions."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamgauge
from streamgauge.commands.importer.blocks import BLOCK_BYTES, MAX_LINE_BYTES
from streamgauge.commands.importer.formats import FORMATS
from streamgauge.model.labels import key_of
from streamgauge.store.lock import acquire
from streamgauge.store.offline import open_folder
from streamgauge.store.verify import check_folder
from streamgauge.testing import requests
from streamgauge.testing.forked import CAN_FORK, run_forked
from streamgauge.testing.lives import content_of
from streamgauge.testing.requests import Series
from streamgauge.testing.server import SECONDS, ServerProcess, eventually
from streamgauge.wire.findings import Reason
from streamgauge.wire.sample_table import MAX_BATCHES, MAX_ROWS

NOW = int(time.time()) // 60 * 60
"""Seconds."""
LARGE = 800_000
"""Samples of a file that takes some requests."""
LARGE_SERIES = 1000


class Importer:
    """The command, with notes of its own."""

    def __init__(self, folder: Path) -> None:
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAMGAUGE_")} | {
            "PYTHONPATH": str(Path(streamgauge.__file__).parents[1]),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self._notes = folder / "state" / "streamgauge" / "import"

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "streamgauge", "import", *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self._environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        if CAN_FORK:
            return run_forked(["import", *map(str, arguments)], self._environment, stdin, SECONDS)
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def notes(self) -> list[Path]:
        return list(self._notes.glob("*.json")) if self._notes.exists() else []


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(tmp_path)


def stored(server: ServerProcess, selector: str) -> float | None:
    return server.value(f"sum(count_over_time({selector}[1d]))", NOW)


def write_large(path: Path, metric: str) -> None:
    """Samples of many series in order of time, whose values are their numbers."""
    with path.open("w") as file:
        for step in range(LARGE // LARGE_SERIES):
            at = NOW - LARGE // LARGE_SERIES + step + 1
            file.write("".join(f'{metric}{{n="{n}"}} {step * LARGE_SERIES + n} {at}\n' for n in range(LARGE_SERIES)))
        file.write("# EOF\n")


def check_large(server: ServerProcess, metric: str) -> None:
    """Nothing is missing, doubled or another."""
    assert stored(server, metric) == LARGE
    assert server.value(f"sum(sum_over_time({metric}[1d]))", NOW) == LARGE * (LARGE - 1) / 2


def framed(*series: Series) -> bytes:
    bodies = [requests.snappy(requests.v1([series[0]])), requests.snappy(requests.v2(series[1:]))]
    return b"".join(bytes([len(body)]) + body for body in bodies)


def files(metric: str) -> dict[str, bytes]:
    """Two samples of two series in every format."""
    ms = NOW * 1000
    a, b = {"__name__": metric, "x": "é"}, {"__name__": metric, "x": 'b "1"'}
    quoted = r"b \"1\""
    lines = [{"metric": labels, "values": [value], "timestamps": [ms]} for labels, value in ((a, 1.5), (b, 2))]
    return {
        "openmetrics": f'{metric}{{x="é"}} 1.5 {NOW}\n{metric}{{x="{quoted}"}} 2 {NOW}.000\n# EOF\n'.encode(),
        "prometheus": f'{metric}{{x="é"}} 1.5 {ms}\n{metric}{{x="{quoted}"}} 2 {ms}\n'.encode(),
        "dump": f'{{__name__="{metric}", x="é"}} 1.5 {ms}\n{{__name__="{metric}", x="{quoted}"}} 2 {ms}\n'.encode(),
        "jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "remote-write": framed(Series(a, [(ms, 1.5)]), Series(b, [(ms, 2.0)])),
    }


@pytest.mark.parametrize("form", ["openmetrics", "prometheus", "dump", "jsonl", "remote-write"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_reaches_a_server(
    server: ServerProcess, importer: Importer, tmp_path: Path, form: str, packed: bool
) -> None:
    metric = f"import_{form.replace('-', '_')}_{packed}"
    data = files(metric)[form]
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(data) if packed else data)
    done = importer.run("--server", server.url, file)
    assert done.returncode == 0, done.stderr
    assert f"importing as {form}" in done.stderr
    assert f"{file}: 2 samples of 2 series stored" in done.stdout
    assert server.samples(f'{metric}{{x="é"}}', NOW) == [(NOW * 1000, "1.5")]
    assert server.samples(f"{metric}{{x='b \"1\"'}}", NOW) == [(NOW * 1000, "2")]
    assert importer.notes() == []


def test_a_folder_of_requests_and_standard_input(server: ServerProcess, importer: Importer, tmp_path: Path) -> None:
    folder = tmp_path / "bodies"
    folder.mkdir()
    for number in range(5):
        body = requests.snappy(requests.v1([Series({"__name__": "import_folder"}, [(NOW * 1000 - number, 1.0)])]))
        (folder / f"{number:03}").write_bytes(body)
    done = importer.run("--server", server.url, folder, "-", stdin=f"import_stdin 5 {NOW}\n# EOF\n")
    assert done.returncode == 0, done.stderr
    assert stored(server, "import_folder") == 5
    assert stored(server, "import_stdin") == 1


def test_what_is_refused_is_named_by_line(server: ServerProcess, importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "file.om"
    ahead = NOW + 3 * 86_400
    file.write_text(
        "# TYPE import_bad gauge\n# HELP import_bad Some.\n"
        f"import_bad 1 {NOW}\ngarbage\nimport_bad 2 {ahead}\nimport_bad 3\n"
        f'import_bad{{x="torn\nimport_bad 4 {NOW - 1} # {{trace="1"}} 1\n# EOF\n'
    )
    done = importer.run("--server", server.url, file)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith(f"{file}: 2 samples of 1 series stored")
    for part in ("exemplar: 1", "invalid_line: 2", "no_timestamp: 1", "too_new: 1", "line 4: ", "line 5: ", "line 6: "):
        assert part in done.stdout
    assert f"time {ahead * 1000} ms is too far ahead" in done.stdout
    assert server.data_of("/api/v1/metadata")["import_bad"] == [{"type": "gauge", "help": "Some.", "unit": ""}]
    again = importer.run("--server", server.url, "--timestamp", str(NOW - 2), file)
    assert "no_timestamp" not in again.stdout
    assert [at for at, _ in server.samples("import_bad", NOW)] == [1000 * (NOW - back) for back in (2, 1, 0)]


def test_a_file_without_its_end(server: ServerProcess, importer: Importer, tmp_path: Path) -> None:
    text, packed = tmp_path / "text", tmp_path / "packed"
    text.write_text(f"import_cut 1 {NOW}.5\n")
    done = importer.run("--server", server.url, text)
    assert done.returncode == 1
    assert "does not end with the line # EOF" in done.stdout
    whole = gzip.compress(
        "".join(f"import_cut 1 {NOW}.{n:03}\nx{hash((n, 1))} 1 {NOW}\n" for n in range(1000)).encode()
    )
    packed.write_bytes(whole[: len(whole) // 2])
    done = importer.run("--server", server.url, packed)
    assert done.returncode == 2
    assert "cannot be read any further" in done.stderr
    assert not done.stdout.startswith(f"{packed}: 0 samples")


def test_samples_that_a_server_does_not_keep_end_an_import_early(importer: Importer, tmp_path: Path) -> None:
    with ServerProcess.start(tmp_path / "data", ("--no-self-monitoring", "--retention", "10d")) as server:
        file = tmp_path / "file.om"
        file.write_text(f"old 1 {NOW}\nold 1 {NOW - 20 * 86_400}\n# EOF\n")
        done = importer.run("--server", server.url, file)
        assert done.returncode == 1
        assert "line 2: " in done.stderr
        assert "start the server with --retention 21d or longer" in done.stderr
        done = importer.run("--server", server.url, "--skip-old", file)
        assert done.returncode == 1
        assert "not stored, too_old: 1" in done.stdout
        assert stored(server, "old") == 1


def test_a_killed_import_goes_on_where_it_was(server: ServerProcess, importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "large.om"
    write_large(file, "import_killed")
    first = importer.start("--server", server.url, file)
    eventually(lambda: importer.notes() or first.poll() is not None)
    first.kill()
    said = first.communicate()
    assert first.returncode == -signal.SIGKILL, said
    second = importer.run("--server", server.url, file)
    assert second.returncode == 0, second.stderr
    assert "going on behind line " in second.stderr
    assert f"{file}: {LARGE:,} samples of {LARGE_SERIES:,} series stored" in second.stdout
    assert "of them by earlier runs" in second.stdout
    check_large(server, "import_killed")
    assert importer.notes() == []


def test_a_killed_server_is_waited_for(importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "large.om"
    write_large(file, "import_waits")
    arguments = ("--no-self-monitoring", "--retention", "0")
    with ServerProcess.start(tmp_path / "data", arguments) as server:
        running = importer.start("--server", server.url, file)
        eventually(lambda: importer.notes() or running.poll() is not None)
        server.kill()
        assert running.stderr is not None
        assert any("waiting, and trying again" in line for line in running.stderr)
        with ServerProcess.start(tmp_path / "data", (*arguments, "--listen", f"127.0.0.1:{server.port}")) as again:
            out, err = running.communicate(timeout=SECONDS)
            assert running.returncode == 0, err
            assert "going on" in err
            assert f"{LARGE:,} samples" in out
            check_large(again, "import_waits")


def test_patience_has_an_end(server: ServerProcess, importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "file.om"
    file.write_text(f"a 1 {NOW}\n# EOF\n")
    done = importer.run("--server", "http://127.0.0.1:1", file)
    assert done.returncode == 1
    assert "no server answers at http://127.0.0.1:1" in done.stderr


def test_a_request_that_a_server_finds_too_large_is_sent_in_parts(importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "file.om"
    lines = [f'small{{n="{n}"}} {n} {NOW}\n' for n in range(5000)]
    lines[4321] = f"small 1 {NOW + 3 * 86_400}\n"
    file.write_text("".join(lines) + "# EOF\n")
    arguments = ("--no-self-monitoring", "--write-max-bytes", "64KB")
    with ServerProcess.start(tmp_path / "data", arguments) as server:
        done = importer.run("--server", server.url, file)
        assert "4,999 samples" in done.stdout, done.stderr
        assert "line 4322: " in done.stdout
        assert server.value("count(small)", NOW) == 4999


def test_a_folder_takes_samples_without_a_server(importer: Importer, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "file.om"
    file.write_text(f'a{{n="1"}} 1 {NOW}\na{{n="2"}} 2 1000000000\n# EOF\n')
    done = importer.run("--data", data, file)
    assert done.returncode == 0, done.stderr
    assert "samples reach back to 2001-09-09: a server on this folder needs --retention" in done.stderr
    assert check_folder(data) == []
    with open_folder(data) as (snapshot, damage):
        assert not damage
        assert snapshot.head.rows == 0, "everything is in blocks"
        times = dict(content_of(snapshot).keys())
    assert times == {key_of({"__name__": "a", "n": "1"}): NOW * 1000, key_of({"__name__": "a", "n": "2"}): 10**12}


def test_a_folder_that_is_held(server: ServerProcess, importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "file.om"
    file.write_text(f"import_held 1 {NOW}\n# EOF\n")
    done = importer.run("--data", server.data, file)
    assert done.returncode == 0, done.stderr
    assert stored(server, "import_held") == 1, "a server that listens takes it"
    with acquire(tmp_path / "held"):
        done = importer.run("--data", tmp_path / "held", file)
    assert done.returncode == 3
    assert f"{tmp_path / 'held'} is in use by process {os.getpid()}" in done.stderr


def test_what_cannot_be_meant(importer: Importer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"PAR1\0\0\0")
    for arguments, code, part in (
        (["--server", "x", "--data", "y", file], 2, "give --server or --data, not both"),
        ([tmp_path / "none"], 3, "there is no file"),
        (["--patience", "long", file], 2, "long"),
        (["--timestamp", "long", file], 2, "is not a time"),
        (["--data", tmp_path / "data", file], 2, "none of the formats"),
        (["--data", tmp_path / "data", "--format", "jsonl", tmp_path], 2, "is a folder"),
    ):
        done = importer.run(*arguments)  # type: ignore[arg-type]
        assert done.returncode == code, done.stderr
        assert part in done.stderr


PAGE = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")


def test_the_program_of_the_documentation_works(server: ServerProcess) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "http://127.0.0.1:4318" in program
    program = program.replace("http://127.0.0.1:4318", server.url).replace("up{job", "up_documented{job")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=True)
    (example,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    answer = json.loads(done.stdout.removeprefix("b'").removesuffix("'\n"))
    assert answer == {"status": "success", "data": {"stored": 2, "refused": {}, "examples": []}}
    assert answer["data"].keys() == json.loads(example)["data"].keys()
    assert len(server.query("up_documented", 1_795_262_816)) == 2


def test_the_documentation_has_the_limits_and_reasons_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"at most {MAX_BATCHES} record batches and {MAX_ROWS:,} rows" in text
    assert f"in blocks of {BLOCK_BYTES >> 20} MiB" in text
    assert f"A JSON line may have {MAX_LINE_BYTES >> 20} MiB" in text
    of_others = {Reason.DUPLICATE, Reason.STRING, Reason.LINE_TOO_LONG, Reason.MALFORMED}  # scrapes, Influx, gRPC
    for reason in set(Reason) - of_others:
        assert f"`{reason.value}`" in text
    for form in FORMATS:
        assert f"| `{form}` |" in text


@pytest.fixture
def blocks_of_prometheus(tmp_path: Path) -> Iterator[Path]:
    """A data folder with blocks that promtool has made."""
    text, folder = tmp_path / "text.om", tmp_path / "prometheus"
    text.write_text(
        "# TYPE promtool_made gauge\n"
        + "".join(f'promtool_made{{n="{n % 3}",q="a \\"b\\" \\\\ é"}} {n / 4} {NOW - 300 + n}\n' for n in range(300))
        + "# EOF\n"
    )
    (folder / "wal").mkdir(parents=True)  # without which promtool's dump does not begin
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, folder]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    yield folder
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


@pytest.mark.peer("promtool")
def test_blocks_of_prometheus_by_way_of_its_dump(
    server: ServerProcess, importer: Importer, blocks_of_prometheus: Path
) -> None:
    dump = subprocess.run(
        ["promtool", "tsdb", "dump", blocks_of_prometheus], check=False, capture_output=True, timeout=SECONDS, text=True
    )
    assert dump.returncode == 0, dump.stderr
    assert len(dump.stdout.splitlines()) == 300
    done = importer.run("--server", server.url, "-", stdin=dump.stdout)
    assert done.returncode == 0, done.stderr
    assert "importing as dump" in done.stderr
    assert stored(server, "promtool_made") == 300
    series = server.samples('promtool_made{n="1",q="a \\"b\\" \\\\ é"}', NOW)
    assert series == [((NOW - 300 + n) * 1000, f"{n / 4:g}") for n in range(1, 300, 3)]


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[str]:
    """The URL of a VictoriaMetrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["victoria-metrics", f"-storageDataPath={tmp_path / 'victoria'}", f"-httpListenAddr={address}"]
    with subprocess.Popen(
        [*command, "-retentionPeriod=1y"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            eventually(lambda: running.poll() is None and answers(f"http://{address}/health"))
            yield f"http://{address}"
        finally:
            running.terminate()


def answers(url: str, body: bytes | None = None) -> bytes:
    """What is answered, nothing where nobody does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=SECONDS) as answer:
            return bytes(answer.read()) or b"ok"
    except OSError:
        return b""


@pytest.mark.peer("victoria-metrics")
def test_an_export_of_victoria_metrics(
    server: ServerProcess, importer: Importer, victoria: str, tmp_path: Path
) -> None:
    ms = NOW * 1000
    text = "".join(
        f'exported{{n="{n % 3}",q="a \\"b\\" é"}} {value} {ms - 1000 * n}\n'
        for n, value in enumerate(["1.5", "+Inf", "-Inf", "0", "5e-1", "12345678901", "-0.25"])
    )
    assert answers(f"{victoria}/api/v1/import/prometheus", text.encode())
    query = urllib.parse.urlencode({"match[]": "exported", "start": NOW - 3600, "end": NOW + 60})
    exported: list[bytes] = []

    def is_all_there() -> bool:
        exported[:] = [answers(f"{victoria}/api/v1/export?{query}")]
        return exported[0].count(b"\n") == 3

    eventually(is_all_there)
    done = importer.run("--server", server.url, "-", stdin=exported[0].decode())
    assert done.returncode == 0, done.stderr
    assert "importing as jsonl" in done.stderr
    found = {n: dict(server.samples(f'exported{{n="{n}"}}', NOW)) for n in range(3)}
    assert found[0] == {ms: "1.5", ms - 3000: "0", ms - 6000: "-0.25"}
    assert found[1] == {ms - 1000: "+Inf", ms - 4000: "0.5"}
    assert found[2] == {ms - 2000: "-Inf", ms - 5000: "12345678901"}
