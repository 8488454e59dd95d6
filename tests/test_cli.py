"""The command line as one types it: what it prints, where, and its exit codes. Real processes, real folders."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from unittest import mock
from urllib.parse import parse_qsl

import pytest

import streamgauge
from streamgauge import __version__
from streamgauge.cli import EXIT_CODES, cli, main
from streamgauge.clock import ManualClock
from streamgauge.model.source import Matcher, MatchOp
from streamgauge.settings import TABLE
from streamgauge.testing.forked import CAN_FORK, ForkedProcess, run_forked
from streamgauge.testing.lives import KEYS, NOON, batch_of, opened

PROGRAM = [sys.executable, "-m", "streamgauge"]
SOURCE = Path(streamgauge.__file__).resolve().parents[1]
_FOREIGN = ("STREAMGAUGE_", "COLUMNS", "LINES")  # pytest-xdist sets the size of a terminal
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | {
    "PYTHONPATH": str(SOURCE),
    "PYTHONUTF8": "1",
}
FOREVER = 60


def run(*arguments: str, cwd: Path = Path(), **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process, which is quicker than one of its own."""
    out, err = StringIO(), StringIO()
    with (
        mock.patch.dict(os.environ, ENVIRONMENT | variables, clear=True),
        mock.patch.object(sys, "argv", ["streamgauge", *arguments]),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), err.getvalue())


def spawn(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own. A server's imports take long."""
    if CAN_FORK and arguments[:1] == ("serve",) and cwd is None:
        return run_forked(arguments, ENVIRONMENT | variables, "", FOREVER)
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=FOREVER,
        cwd=cwd,
        env={**ENVIRONMENT, **variables},
        check=False,
    )


def says(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """The one check of a failure: its exit code, nothing on stdout, and one line on stderr that names these things."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("streamgauge: ")
    for part in parts:
        assert part in line


class Server:
    """A running `streamgauge serve`."""

    def __init__(self, data: Path, *flags: str, listen: str = "127.0.0.1:0", fresh: bool = not CAN_FORK) -> None:
        """fresh: with an interpreter of its own, as one types it."""
        self.data = data
        arguments = ["serve", "--data", str(data), "--listen", listen, *flags]
        self._out = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process: subprocess.Popen[str] | ForkedProcess
        if fresh:
            self.process = subprocess.Popen(
                [*PROGRAM, *arguments],
                stdout=self._out,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=ENVIRONMENT,
            )
            lines = self.process.stderr
        else:
            self.process = ForkedProcess.piped(arguments, ENVIRONMENT, self._out.fileno())
            lines = self.process.stdout
        assert lines is not None
        self._lines = lines
        self._log: list[str] = []

    def wait_for(self, words: str) -> None:
        for line in self._lines:
            self._log.append(line)
            if words in line:
                return
        pytest.fail(f"the server ended without saying {words!r}: {self._log}")

    def stop(self) -> tuple[str, str, int]:
        """Everything it said, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self._log += self._lines
        code = self.process.wait(FOREVER)
        self._out.seek(0)
        out = self._out.read()
        self.close()
        return out, "".join(self._log), code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(FOREVER)
        self._lines.close()
        self._out.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that listens on all addresses and samples itself."""
    server = Server(tmp_path_factory.mktemp("served") / "data", "--insecure", listen="0.0.0.0:0")
    try:
        server.wait_for("ready")
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a stopped server has left, with this host's metrics in its log."""
    server = Server(tmp_path_factory.mktemp("stopped") / "data")
    server.wait_for("ready")
    while run("query", "--data", str(server.data), "node_load1", "--format", "csv").stdout.count("\n") < 2:
        assert server.process.poll() is None
    server.stop()
    return server.data


# ---- help, version, usage -------------------------------------------------------------------------------------------


def test_version() -> None:
    result = spawn("--version")
    assert (result.stdout, result.stderr, result.returncode) == (f"streamgauge {__version__}\n", "", 0)


def test_help_lists_every_command_and_exit_code() -> None:
    text = run("-h").stdout
    assert text == run("--help").stdout
    for name in cli.commands:
        assert re.search(rf"^  {name} +\w", text, re.MULTILINE), name
    for code in re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE):
        assert re.search(rf"^ +{code} +\w", text, re.MULTILINE), code
    assert "_STREAMGAUGE_COMPLETE" in text


def test_help_of_serve_has_every_setting_under_a_heading_with_its_default() -> None:
    text = " ".join(run("serve", "-h").stdout.split())
    for setting in TABLE:
        flag = f"--[no-]{setting.flag[2:]}" if setting.metavar == "BOOL" else f"{setting.flag} {setting.metavar}"
        assert f"{flag} {setting.help}" in text
        assert f"{setting.group}:" in text
    for default in ("[15d]", "[127.0.0.1:4318]", "[./streamgauge-data]", "[64MB]"):
        assert default in text


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_help_fits_a_terminal(command: Sequence[str]) -> None:
    result = run(*command, "-h")
    assert result.returncode == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["frobnicate"], ["frobnicate", "streamgauge -h"]),
        (["serve", "--lisen", "x"], ["--lisen", "--listen", "streamgauge serve -h"]),
        (["serve", "--listen", "4318"], ["--listen", '"4318"', "HOST:PORT"]),
        (["serve", "--retention", "soon"], ["--retention", '"soon"', "15d"]),
        (["serve", "--log-level", "loud"], ["--log-level", "warning"]),
        (["serve", "--listen", "0.0.0.0:0"], ["0.0.0.0:0", "authentication", "--insecure"]),
        (["serve", "--config", "/nowhere.yml"], ["/nowhere.yml", "cannot be read"]),
        (["query"], ["EXPRESSION"]),
        (["query", "up", "--format", "xml"], ["xml", "'graph'"]),
        (["query", "up", "--time", "noon"], ["noon", "Unix seconds", "-5m"]),
        (["query", "up", "--time", "1e300"], ["1e300"]),
        (["query", "up", "--time", "0001-01-01", "--start", "-5m"], ["--time", "--start"]),
        (["query", "up", "--start", "-5m", "--end", "-10m"], ["--end is before --start"]),
        (["query", "up", "--step", "inf"], ["inf"]),
        (["query", "up", "--step", "0"], ["--step"]),
        (["query", "up", "--server", "http://me:hunter2@127.0.0.1:1"], ["no password"]),
        (["query", "up", "--server", "http://", "--time", "1"], ["not the URL of a server", "http://127.0.0.1:4318"]),
        (["query", "up", "--server", "x", "--data", "y"], ["--server or --data"]),
        (["delete"], ["SELECTOR", "streamgauge delete -h"]),
        (["delete", "up", "--start", "-5m", "--end", "-10m"], ["--end is before --start"]),
        (["delete", "up", "--end", "noon"], ["noon", "Unix seconds", "-5m"]),
        (["delete", "up", "--server", "x", "--data", "y"], ["--server or --data"]),
        (["check-config", "nowhere.yml"], ["nowhere.yml", "cannot be read"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    says(run(*arguments, cwd=tmp_path), 2, *parts)


# ---- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["inspect", "check", "compact", "query up --data", "delete up --data", "serve --data"]
)
def test_what_is_no_data_folder_is_said_and_left_alone(command: str, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "tmp").mkdir()
    (tmp_path / "file").touch()
    words = command.split()
    typed = run
    if words[0] == "serve":
        typed = spawn
    else:
        says(run(*words, str(tmp_path / "absent")), 3, "there is no folder", "absent")
    says(typed(*words, str(tmp_path / "file")), 3, "is a file", "folder")
    says(typed(*words, str(tmp_path / "foreign")), 3, str(tmp_path / "foreign"))
    assert os.listdir(tmp_path / "foreign") == ["tmp"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    says(run("inspect", str(tmp_path / "closed" / "data")), 3, "Permission denied", "right")


def test_a_folder_is_queried_inspected_and_checked_without_a_server(folder: Path) -> None:
    before = _content(folder)
    result = run("query", "--data", str(folder), "count(node_load1)", "--time", "now")
    assert (result.stderr, result.returncode) == ("", 0)
    assert json.loads(result.stdout)["result"][0]["value"][1] == "1"
    text = run("inspect", str(folder), "--limit", "3").stdout
    assert "which no server holds" in text
    assert "node_cpu_seconds_total" in text
    assert "job=node" in text
    report = json.loads(run("inspect", str(folder), "--json").stdout)
    assert report["head"]["samples"] > 300
    assert report["blocks"] == []
    result = run("check", str(folder))
    assert (result.stdout, result.stderr, result.returncode) == (f"{folder}: good\n", "", 0)
    assert _content(folder) == before


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_compact_writes_the_log_into_blocks(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    before = json.loads(run("inspect", str(data), "--json").stdout)
    result = run("compact", str(data))
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(
        r"before: 0 blocks, 0 samples, 0 bytes\n"
        r"after:  1 block, [\d,]+ samples, [\d,]+ bytes, \d+\.\d\d bytes a sample\n",
        result.stdout,
    )
    after = json.loads(run("inspect", str(data), "--json").stdout)
    assert sum(block["samples"] for block in after["blocks"]) == before["head"]["samples"]
    assert after["head"]["samples"] == 0
    shown = run("inspect", str(data)).stdout
    assert after["blocks"][0]["id"] in shown, "the name of a block must not be cut off"
    assert run("check", str(data)).returncode == 0


def test_delete_says_what_it_will_delete_asks_and_deletes(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    where = ("--data", str(data))
    typed = ("delete", 'node_load1{job="node"}', "node_load5", *where)
    with mock.patch("sys.stdin", StringIO("n\n")):
        result = run(*typed, "--end", "now")
    assert result.returncode == 1
    assert re.fullmatch(
        rf"{re.escape(str(data))}: samples up to [\d-]+ [\d:]+ UTC of 2 series that match\n"
        r'  node_load1\{job="node"\}\n  node_load5\n'
        r"Delete them for good\? \[y/N\]: Nothing was deleted.\n",
        result.stdout,
    )
    assert run("query", "count(node_load1)", *where, "--format", "csv").stdout.endswith(",1\n")
    result = run(*typed, "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert "samples of all times of 2 series" in result.stdout
    assert re.search(r"\nDeleted \d+ samples of 2 series\. They are off the disk\.\n$", result.stdout)
    assert run("query", "count(node_load1)", *where, "--format", "csv").stdout == "time,value\n"
    assert run("query", "count(node_load15)", *where, "--format", "csv").stdout.endswith(",1\n")
    assert run("check", str(data)).returncode == 0
    assert "nothing to delete" in run(*typed, "--yes").stdout
    assert "delete events --where CONDITION" in run("delete", "events", *where).stdout
    says(run("delete", "sum(up)", *where, "--yes"), 2, "expected a series selector")


def test_inspect_shows_deletions_that_wait(tmp_path: Path) -> None:
    async def delete() -> None:
        async with opened(tmp_path / "data", ManualClock(NOON)) as (store, maintenance):
            await store.append(batch_of(store, [(KEYS[0], NOON, 1), (KEYS[1], NOON + 1, 1)]))
            await maintenance.delete([[Matcher("__name__", MatchOp.EQUAL, "up")]], NOON, NOON)

    asyncio.run(delete())
    text = run("inspect", str(tmp_path / "data")).stdout
    at = "2023-11-14 12:00:00"
    line = f"Deletion 1, hidden and not yet off the disk: 1 series, from {at} to {at} UTC, in 1 block at most\n"
    assert line in text
    assert "Series: 1\n" in text
    (pending,) = json.loads(run("inspect", str(tmp_path / "data"), "--json").stdout)["tombstones"]
    assert pending == {"id": 1, "min_time": NOON, "max_time": NOON, "series": 1, "blocks": 1}


def test_check_finds_damage_and_exits_with_1(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    run("compact", str(data))
    (samples,) = data.glob("blocks/*/samples.parquet")
    content = bytearray(samples.read_bytes())
    content[len(content) // 2] ^= 1
    samples.chmod(0o640)
    samples.write_bytes(content)
    result = run("check", str(data))
    assert result.returncode == 1
    assert samples.parent.name in result.stdout
    assert re.search(r"\d problems?$", result.stderr)


def test_a_folder_whose_catalog_is_lost_says_how_to_get_it_back(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "catalog.sqlite").unlink()
    says(run("inspect", str(data)), 3, "catalog.sqlite", "rebuilt when a server starts")


@pytest.mark.peer("setpriv")
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can give up its privileges")
@pytest.mark.parametrize(("mode", "code"), [(0o755, 0), (0o700, 3)])
def test_a_folder_of_somebody_else_is_read_if_one_may(folder: Path, tmp_path: Path, mode: int, code: int) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    for path in [*data.rglob("*"), data]:
        path.chmod(mode if path.is_dir() else mode & 0o644)
        os.chown(path, 65534, 65534)
    without_privileges = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    query = ["query", "--data", str(data), "count(node_load1)", "--format", "csv"]
    result = subprocess.run(
        [*without_privileges, *PROGRAM, *query],
        capture_output=True,
        text=True,
        timeout=FOREVER,
        check=False,
        env=ENVIRONMENT,
    )
    if code == 0:
        assert (result.stderr, result.returncode) == ("", 0)
        assert result.stdout.endswith(",1\n")
    else:
        says(result, 3, "Permission denied", "right")


# ---- with a server --------------------------------------------------------------------------------------------------


def test_commands_go_through_the_server_that_holds_the_folder(server: Server) -> None:
    data = str(server.data)
    address = json.loads((server.data / "lock").read_text(encoding="utf-8"))["address"]
    assert address.startswith("0.0.0.0:"), "what others connect to"
    url = f"http://127.0.0.1:{address.rpartition(':')[2]}"
    assert f"through the server at {url}" in run("inspect", data).stdout
    assert (
        len(json.loads(run("inspect", data, "--json", "--limit", "2").stdout)["cardinality"]["seriesCountByMetricName"])
        <= 2
    )
    assert run("check", data).stdout == f"{data}: good\n"
    by_folder = json.loads(run("query", "--data", data, "vector(3)", "--time", "1").stdout)
    assert by_folder == json.loads(run("query", "--server", url, "vector(3)", "--time", "1").stdout)
    assert by_folder == json.loads(run("query", "vector(3)", "--time", "1", STREAMGAUGE_SERVER=url).stdout)
    assert by_folder == json.loads(run("query", "vector(3)", "--time", "1", STREAMGAUGE_DATA=data).stdout)
    without_scheme = run(
        "query", "--server", url.removeprefix("http://"), "vector(3)", "--time", "1", http_proxy=url[:-1]
    )
    assert by_folder == json.loads(without_scheme.stdout), "neither a scheme is needed nor a proxy asked"


def test_deleting_goes_through_the_server_and_must_be_enabled_there(server: Server, tmp_path: Path) -> None:
    typed = ("delete", "node_load1", "--data", str(server.data), "--end", "1970-01-01T00:00:00Z", "--yes")
    assert "nothing to delete" in run(*typed).stdout
    result = run("delete", "node_load1", "--data", str(server.data), "--start", "-1h", "--yes")
    assert result.returncode == 1
    assert "--enable-admin-api" in result.stderr
    enabled = Server(tmp_path / "data", "--enable-admin-api")
    enabled.wait_for("ready")
    where = ("--data", str(enabled.data))
    while run("query", *where, "node_load1", "--format", "csv").stdout.count("\n") < 2:
        assert enabled.process.poll() is None
    result = run("delete", "node_load1", *where, "--end", "now", "--yes")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("http://127.0.0.1:")
    assert "of 1 series that match\n  node_load1\nDeleted: no query sees these samples any more." in result.stdout
    enabled.stop()


def test_a_held_folder_is_neither_compacted_nor_served_twice(server: Server) -> None:
    pid = str(server.process.pid)
    says(run("compact", str(server.data)), 3, "held by the server at http://127.0.0.1:", pid, "stop")
    says(spawn("serve", "--data", str(server.data), "--listen", "127.0.0.1:0"), 3, "in use", pid, "--data")


def test_errors_of_the_server_come_through(server: Server) -> None:
    says(run("query", "--data", str(server.data), "sum("), 2, "parse error")
    says(run("query", "--data", str(server.data), "label_replace(vector(1), 'a b', '', '', '(')"), 1)


def test_an_address_that_is_taken_is_said(server: Server, tmp_path: Path) -> None:
    port = json.loads((server.data / "lock").read_text(encoding="utf-8"))["address"].rpartition(":")[2]
    says(spawn("serve", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}"), 1, port, "another program")


def test_a_server_says_where_it_listens_and_stops_when_asked(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", "--no-self-monitoring", fresh=True)
    server.wait_for("ready")
    out, log, code = server.stop()
    assert code == 0
    assert re.search(r"Grafana data source +http://127\.0\.0\.1:\d+/\n", out)
    assert re.search(r"remote_write +http://127\.0\.0\.1:\d+/api/v1/write\n", out)
    assert log.splitlines()[-1].endswith("stopped; everything is on disk")
    assert json.loads(run("inspect", str(tmp_path / "data"), "--json").stdout)["head"]["samples"] == 0


def test_a_log_for_programs_is_json_on_every_line(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", "--log-format", "json", "--log-level", "info", "--no-self-monitoring")
    server.wait_for("ready")
    out, log, _ = server.stop()
    assert out == ""
    lines = [json.loads(line) for line in log.splitlines()]
    (listening,) = [line for line in lines if line["message"] == "listening"]
    assert listening["url"].startswith("http://127.0.0.1:")
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_why_a_service_does_not_start_is_an_error_in_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+", encoding="utf-8") as journal:
        status = os.fstat(journal.fileno())
        environment = ENVIRONMENT | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [*PROGRAM, "serve", "--config", "/nowhere.yml"]
        done = subprocess.run(command, stderr=journal, env=environment, timeout=FOREVER, check=False)
        journal.seek(0)
        assert (done.returncode, journal.read()[:32]) == (2, "<3>streamgauge: /nowhere.yml: ca")


def test_no_server_is_said_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        says(
            run("query", "up", "--server", address, cwd=tmp_path), 1, address, "refused", "streamgauge serve", "--data"
        )


def test_an_answer_of_something_else_is_said_with_its_path(server: Server) -> None:
    port = json.loads((server.data / "lock").read_text(encoding="utf-8"))["address"].rpartition(":")[2]
    says(run("query", "up", "--server", f"127.0.0.1:{port}/metrics"), 1, "404", "/metrics/api/v1/query", "streamgauge?")


def test_a_misspelt_variable_is_warned_of(tmp_path: Path) -> None:
    result = spawn(
        "serve",
        "--data",
        str(tmp_path / "data"),
        "--config",
        "/dev/null",
        STREAMGAUGE_LISTN="x",
        STREAMGAUGE_LISTEN="192.0.2.1:1",
        STREAMGAUGE_INSECURE="1",
    )
    assert result.returncode == 1
    assert "STREAMGAUGE_LISTN is no setting; did you mean STREAMGAUGE_LISTEN?" in result.stderr.splitlines()[0]


# ---- output ---------------------------------------------------------------------------------------------------------


def test_formats(folder: Path) -> None:
    query = ["query", "--data", str(folder), "label_replace(vector(0.5), 'a', 'x,\x1b[31m', '', '')", "--time", "60"]
    assert json.loads(run(*query, "--format", "json").stdout)["result"] == [
        {"metric": {"a": "x,\x1b[31m"}, "value": [60, "0.5"]}
    ]
    assert run(*query, "--format", "csv").stdout == 'a,time,value\n"x,\x1b[31m",60.000,0.5\n'
    assert run(*query, "--format", "table").stdout == 'value  series\n  0.5  {a="x,\\u001b[31m"}\n'
    assert run(*query).stdout.startswith('{"resultType": "vector"'), "json where the output is no terminal"


def local(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def test_ranges(folder: Path) -> None:
    query = ["query", "--data", str(folder), "time()", "--start", "0", "--end", "120", "--step", "1m"]
    assert run(*query, "--format", "csv").stdout == "time,value\n0.000,0\n60.000,60\n120.000,120\n"
    table = run(*query, "--format", "table").stdout.splitlines()
    assert table == [
        "{}",
        f"  {local(0)}      0",
        f"  {local(60)}     60",
        f"  {local(120)}    120",
    ]
    graph = run(*query, "--format", "graph").stdout
    assert "100 ┤" in graph
    assert local(80)[-8:] in graph
    assert graph.endswith("⣀ time()\n")
    assert "\x1b" not in graph, "no colours where the output is no terminal"


def test_nothing_found_is_said_on_stderr(folder: Path) -> None:
    result = run("query", "--data", str(folder), "absent_metric", "--format", "table")
    assert (result.stdout, result.stderr, result.returncode) == ("", "no data\n", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break in other ways there")
def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    query = ["query", "--data", str(folder), '{__name__!=""}', "--format", "table"]
    process = subprocess.Popen([*PROGRAM, *query], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(FOREVER) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process there")
def test_ctrl_c_ends_a_command_with_130() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*PROGRAM, "query", "up", "--server", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=FOREVER)
    assert (out, err.strip(), process.returncode) == (b"", b"", 130)


def test_shell_completion() -> None:
    for shell in ("bash", "zsh", "fish"):
        result = spawn(_STREAMGAUGE_COMPLETE=f"{shell}_source")
        assert "_STREAMGAUGE_COMPLETE" in result.stdout, result.stderr
    words = spawn(
        _STREAMGAUGE_COMPLETE="bash_complete", COMP_WORDS="streamgauge serve --log-level ", COMP_CWORD="3"
    ).stdout
    assert [line.partition(",")[2] for line in words.splitlines()] == ["debug", "info", "warning", "error"]
    words = spawn(_STREAMGAUGE_COMPLETE="bash_complete", COMP_WORDS="streamgauge comp", COMP_CWORD="1").stdout
    assert words == "plain,compact\n"
    words = spawn(_STREAMGAUGE_COMPLETE="bash_complete", COMP_WORDS="streamgauge check ", COMP_CWORD="2").stdout
    assert words == "dir,\n"


# ---- check-config ---------------------------------------------------------------------------------------------------


def test_check_config(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text("streamgauge:\n  retention: 90d\nrule_files:\n- a.yml\n", encoding="utf-8")
    result = run("check-config", "good.yml", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("good.yml: good, with 1 warning\n", 0)
    assert result.stderr == "warning: good.yml:3: rule_files is not acted on yet and changes nothing\n"
    (tmp_path / "bad.yml").write_text("streamgauge:\n  retenton: 90d\n", encoding="utf-8")
    says(run("check-config", "bad.yml", cwd=tmp_path), 2, "bad.yml:2:", "retenton", 'did you mean "retention"?')
    (tmp_path / "bad.yml").write_text("event_metrics:\n- name: a\n  type: sum\n", encoding="utf-8")
    says(run("check-config", "bad.yml", cwd=tmp_path), 2, "bad.yml:2:", "event_metrics.0", "value is missing")


def test_check_config_names_what_every_scrape_would_fail_for(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(
        "scrape_configs:\n- job_name: a\n  basic_auth: {username: u, password_file: none}\n"
        "  tls_config: {ca_file: p.yml}\n"
        "  static_configs: [{targets: ['h:1']}, {targets: ['http://h:1', 'u:secret@h:2']}]\n"
        "  http_sd_configs: [{url: 'http://h/', authorization: {credentials_file: nor}}]\n"
        "  file_sd_configs: [{files: ['*.yml', 'x/*.json']}]\n",
        encoding="utf-8",
    )
    result = run("check-config", "p.yml", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("p.yml: good, with 5 warnings\n", 0)
    assert result.stderr.splitlines() == [
        'warning: job a: static_configs.1: http://h:1: "http://h:1" is no address; write host:port',
        "warning: job a: static_configs.1: h:2: its address has a user in it; "
        "write host:port, and basic_auth in the job",
        "warning: job a: there is no file x/*.json yet",
        "warning: job a: none cannot be read: No such file or directory",
        "warning: job a: nor cannot be read: No such file or directory",
    ]


# ---- scrape ---------------------------------------------------------------------------------------------------------


EXPOSED = b'# HELP a_total Some text.\n# TYPE a_total counter\na_total{x="1"} 1\na_total{x="2"} 2\nb{y="\\\\n"} NaN\n'


BY_PATH = {  # content type and body; for any other path, EXPOSED as text
    "/html": ("text/html", EXPOSED),
    "/odd": ("text/plain; version=1.0.0", b'{"a.b","c d"="e"} 1 1700000000000\nlate 2 99999999999999\n'),
}
CLASH = b"# TYPE a gauge\na 1\n# TYPE a counter\na_total 2\n# EOF\n"


@pytest.fixture
def target() -> Iterator[str]:
    """The address of a server that exposes three samples; see BY_PATH. /clash has OpenMetrics that breaks its rules for
    those who want any, /echo a sample for each parameter and one for who asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = BY_PATH.get(self.path, ("text/plain; version=0.0.4", EXPOSED))
            if self.path == "/clash" and "openmetrics" in self.headers["accept"]:
                kind, body = "application/openmetrics-text; version=1.0.0", CLASH
            if self.path.startswith("/echo"):
                pairs = [*parse_qsl(self.path.partition("?")[2]), ("who", self.headers["authorization"] or "")]
                body = "".join(f'{name}{{is="{value}"}} 1\n' for name, value in pairs).encode()
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_scrape_shows_what_a_target_gives(target: str, tmp_path: Path) -> None:
    shown = run("scrape", target)
    assert shown.returncode == 0, shown.stderr
    first, second, *rows = shown.stdout.splitlines()
    assert first == f"http://{target}/metrics: text/plain; version=0.0.4, {len(EXPOSED)} bytes"
    assert second == "3 samples"
    assert [row.split() for row in rows] == [
        ["metric", "type", "series", "help"],
        ["a_total", "counter", "2", "Some", "text."],
        ["b", "unknown", "1"],
    ]
    samples = run("scrape", f"http://{target}/metrics", "--samples").stdout.splitlines()
    own = f'instance="{target}",job="scrape"'
    assert samples == [f'a_total{{{own},x="{n}"}} {n}' for n in (1, 2)] + [f'b{{{own},y="\\\\n"}} NaN']


def test_scrape_as_a_job_does(target: str, tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(
        "scrape_configs:\n- job_name: one\n- job_name: two\n"
        "  metric_relabel_configs: [{source_labels: [x], regex: '1', action: drop}]\n"
        "  relabel_configs: [{target_label: zone, replacement: a}]\n",
        encoding="utf-8",
    )
    shown = run("scrape", target, "--config", "p.yml", "--job", "two", cwd=tmp_path)
    assert "3 samples, 1 dropped by relabelling" in shown.stdout
    samples = run("scrape", target, "--config", "p.yml", "--job", "two", "--samples", cwd=tmp_path).stdout
    assert f'a_total{{instance="{target}",job="two",x="2",zone="a"}} 2\n' in samples
    says(
        run("scrape", target, "--config", "p.yml", "--job", "x", cwd=tmp_path),
        2,
        "p.yml has no such job; it has one, two",
    )


def test_scrape_asks_for_what_the_url_says(target: str, tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(
        "scrape_configs: [{job_name: a, params: {x: ['0'], y: ['0']}, basic_auth: {username: u}}]", encoding="utf-8"
    )
    url = f"http://name:pass@{target}/echo?x=1&x=2&z=3"
    basic = b64encode(b"name:pass").decode()
    plain = run("scrape", url, "--samples")
    assert "pass" not in plain.stdout
    assert re.findall(r'^(\w+){.*is="([^"]*)"', plain.stdout, re.MULTILINE) == [
        *[("x", "1"), ("x", "2"), ("z", "3")],
        ("who", f"Basic {basic}"),
    ]
    configured = run("scrape", url, "--samples", "--config", "p.yml", cwd=tmp_path).stdout
    assert re.findall(r'^(\w+){.*is="([^"]*)"', configured, re.MULTILINE) == [
        *[("x", "1"), ("x", "2"), ("y", "0"), ("z", "3")],
        ("who", f"Basic {b64encode(b'u:').decode()}"),
    ]


def test_scrape_shows_times_and_names_as_they_would_be_stored(target: str) -> None:
    own = f'instance="{target}",job="scrape"'
    shown = run("scrape", f"{target}/odd", "--samples").stdout
    assert shown == f'{{"a.b","c d"="e",{own}}} 1 1700000000000\n'
    assert "2 samples, 1 with a time more than 10 minutes ahead, left out" in run("scrape", f"{target}/odd").stdout


def test_scrape_settles_for_text_as_a_server_does(target: str) -> None:
    settled = run("scrape", f"{target}/clash")
    assert "3 samples" in settled.stdout
    assert settled.stderr.startswith("this is not valid OpenMetrics, so text was asked for instead: line 3: ")


def test_scrape_says_why_a_scrape_would_fail(target: str, tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text(
        "scrape_configs: [{job_name: a}]\nstreamgauge: {scrape_max_bytes: 10}", encoding="utf-8"
    )
    says(run("scrape", target, "--config", "p.yml", cwd=tmp_path), 1, "larger than 10 bytes")
    says(run("scrape", f"https://{target}"), 1, "it does not speak TLS; is its scheme http?")
    says(run("scrape", "http://[::1/x"), 2, "http://[::1/x is no URL")
    says(run("scrape", target, "--protocol", "OpenMetrics"), 2, '"OpenMetrics" is no protocol', "OpenMetricsText1.0.0")
    says(run("scrape", f"{target}/clash", "--protocol", "OpenMetricsText1.0.0"), 1, 'line 3: metadata of "a"')
    says(run("scrape", f"{target}/html"), 1, "content type text/html")
    says(run("scrape", "127.0.0.1:1"), 1, "connecting to 127.0.0.1:1: connection refused")
    says(run("scrape", "ftp://x/"), 2, 'scheme "ftp" is neither http nor https')
