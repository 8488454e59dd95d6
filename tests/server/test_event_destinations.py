"""Events are handed on to real destinations by a real server, through restarts and kills: none is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import streamgauge
from streamgauge.forward.delivery import BATCH_EVENTS
from streamgauge.testing.programs import find_program
from streamgauge.testing.server import SECONDS, ServerProcess, eventually
from streamgauge.wire.jsonb import json_of

SOURCE = Path(streamgauge.__file__).parents[1]
StartServer = Callable[..., ServerProcess]


def post(server: ServerProcess, numbers: Iterable[int]) -> None:
    body = "".join(f'{{"n":{number},"text":"é \\" {number}"}}\n' for number in numbers).encode()
    answer = server.request("POST", "/api/v1/events", body, {"x-from": "a test"})
    assert answer.status == 200, answer.text


def configured(folder: Path, section: str) -> tuple[str, str]:
    file = folder / "streamgauge.yml"
    file.write_text(f"event_destinations:\n  - name: out\n{section}")
    return ("--config", str(file))


def in_sqlite(file: Path) -> list[int]:
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall():
            return []
        rows = connection.execute("SELECT payload FROM events ORDER BY rowid").fetchall()
    return [json.loads(json_of(payload))["n"] for (payload,) in rows]


def in_json_files(folder: Path, table: str = "events") -> list[dict[str, Any]]:
    rows = []
    for file in sorted(folder.glob(f"{table}.file.*.json.zst")):
        try:
            text = pa.CompressedInputStream(pa.OSFile(str(file)), "zstd").read()
        except OSError:  # its last frame is being written
            continue
        rows += [json.loads(line) for line in text.decode().splitlines()]
    return rows


def test_a_sqlite_file_gets_the_reference_schema(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    arguments = configured(tmp_path, "    sqlite:\n      file: events.db\n")
    server = start_server(*arguments)
    post(server, range(3))
    post(server, range(3, 5))
    eventually(lambda: in_sqlite(file) == [0, 1, 2, 3, 4])
    with closing(sqlite3.connect(file)) as connection:
        ((version,),) = connection.execute("PRAGMA user_version")
        streams = connection.execute("SELECT stream_id, headers, start_datetime FROM streams ORDER BY 1").fetchall()
        first = connection.execute(
            "SELECT insert_datetime, stream_id, datetime(insert_datetime) FROM events"
        ).fetchone()
    assert version == 1
    assert json.loads(json_of(streams[0][1]))["x-from"] == "a test"
    assert (len(streams), first[1], first[0]) == (2, streams[0][0], first[2])
    eventually(lambda: server.metric_sum("streamgauge_destination_events_total") == 5)
    assert server.stop() == 0
    again = start_server(*arguments)
    post(again, [5])
    eventually(lambda: len(in_sqlite(file)) >= 6)
    assert in_sqlite(file) == list(range(6))


def test_a_reload_starts_changes_and_stops_destinations(start_server: StartServer, tmp_path: Path) -> None:
    first, second, folder = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "files"
    server = start_server(*configured(tmp_path, "    sqlite: {file: a.db}\n"))
    post(server, range(3))
    eventually(lambda: in_sqlite(first) == [0, 1, 2])
    configured(tmp_path, "    sqlite: {file: b.db}\n  - name: files\n    json_files: {folder: files}\n")
    assert server.post("/-/reload").status == 200
    post(server, range(3, 5))
    eventually(lambda: in_sqlite(second) == [3, 4])
    eventually(lambda: [row["payload"]["n"] for row in in_json_files(folder)] == [0, 1, 2, 3, 4])
    configured(tmp_path, "    sqlite: {fill: b.db}\n")
    assert server.post("/-/reload").status == 500
    configured(tmp_path, "    sqlite: {file: a.db}\n")
    assert server.post("/-/reload").status == 200
    post(server, [5])
    eventually(lambda: in_sqlite(first) == [0, 1, 2, 5])
    assert in_sqlite(second) == [3, 4]
    assert len(in_json_files(folder)) == 5
    (tmp_path / "streamgauge.yml").write_text("")
    assert server.post("/-/reload").status == 200
    post(server, [6])
    assert server.stop() == 0
    assert in_sqlite(first) == [0, 1, 2, 5]


def test_json_files_are_rotated(start_server: StartServer, tmp_path: Path) -> None:
    section = "    json_files:\n      folder: out\n      max_file_bytes: 1\n"
    server = start_server(*configured(tmp_path, section))
    post(server, range(100))
    eventually(lambda: len(in_json_files(tmp_path / "out")) == 100)
    post(server, range(100, 103))
    eventually(lambda: len(in_json_files(tmp_path / "out")) == 103)
    rows = in_json_files(tmp_path / "out")
    assert {row["payload"]["n"] for row in rows} == set(range(103))
    assert rows[0].keys() == {"insert_datetime", "stream_id", "stream_event_index", "payload"}
    assert len(list((tmp_path / "out").glob("events.file.*.json.zst"))) == 2
    streams = in_json_files(tmp_path / "out", "streams")
    assert {stream["headers"]["x-from"] for stream in streams} == {"a test"}


def test_a_destination_that_is_down_is_caught_up_with(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "gone" / "events.db"
    server = start_server(*configured(tmp_path, "    sqlite:\n      file: gone/events.db\n"))
    post(server, range(10))
    line = server.await_line("events are not delivered to out")
    assert "cannot be written" in line
    eventually(lambda: server.metric_sum("streamgauge_destination_failures_total") >= 2)
    assert len([line for line in server.output if "events are not delivered" in line]) == 1
    file.parent.mkdir()
    eventually(lambda: in_sqlite(file) == list(range(10)))
    server.await_line("events are delivered to out again")


def count_in_sqlite(file: Path) -> int:
    """How many different events there are, none while there is no table."""
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall()
        return int(connection.execute("SELECT count(DISTINCT payload) FROM events").fetchone()[0]) if tables else 0


def test_nothing_is_missing_after_kills(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    arguments = configured(tmp_path, "    sqlite:\n      file: events.db\n")
    sent, kills = 0, 3
    for _ in range(kills):
        server = start_server(*arguments)
        before = count_in_sqlite(file)
        for _ in range(5):
            post(server, range(sent, sent + 800))
            sent += 800
        eventually(lambda before=before: count_in_sqlite(file) > before)
        server.kill()
    last = start_server(*arguments)
    eventually(lambda: count_in_sqlite(file) == sent)
    assert last.stop() == 0
    found = in_sqlite(file)
    assert set(found) == set(range(sent))
    assert len(found) - sent <= kills * BATCH_EVENTS, "only what was being written came twice"


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL with a password on a socket in a folder. How to reach it."""
    program = find_program("postgres")
    assert program is not None
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    (folder / "password").write_text("p'w\n")
    (folder / "password").chmod(0o644)
    initdb = [Path(program).resolve().parent / "initdb", "-D", folder / "db", "-U", "gauge", "-A", "scram-sha-256"]
    subprocess.run([*initdb, "--pwfile", folder / "password"], check=True, capture_output=True, user=user, cwd="/")
    command = [program, "-D", folder / "db", "-k", folder, "-c", "listen_addresses="]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, user=user, cwd="/") as running:
        assert running.stdout is not None
        while b"ready to accept" not in (line := running.stdout.readline()):
            assert line, "PostgreSQL did not start"
        try:
            yield f"host={folder} user=gauge dbname=postgres"
        finally:
            running.send_signal(signal.SIGINT)  # without waiting for clients
            running.communicate(timeout=SECONDS)


@pytest.mark.peer("postgres")
def test_postgres_gets_the_reference_schema_and_may_be_away(start_server: StartServer, tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        folder = Path(place)
        with postgres(folder) as conninfo:
            section = f"    postgres:\n      conninfo: {conninfo}\n      password_file: {folder / 'password'}\n"
            server = start_server(*configured(tmp_path, section))
            post(server, range(5))

            def rows() -> list[Any]:
                with psycopg.connect(conninfo, password="p'w") as connection:
                    return list(connection.execute("SELECT * FROM events ORDER BY stream_id, stream_event_index"))

            eventually(lambda: server.metric_sum("streamgauge_destination_events_total") == 5)
            assert [row[0] for row in rows()] == [1, 2, 3, 4, 5]
            assert [row[2]["n"] for row in rows()] == [0, 1, 2, 3, 4]
            assert server.request("POST", "/", b'{"bad":"\\u0000"}{"n":5}').status == 200
            eventually(lambda: server.metric_sum("streamgauge_destination_left_out_total") == 1)
            assert rows()[-1][2] == {"n": 5}
        (folder / "db" / "postmaster.pid").unlink(missing_ok=True)
        post(server, range(6, 9))
        server.await_line("events are not delivered to out")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("    sqlite:\n      file: x\n    json_files:\n      folder: y\n", "give one of sqlite, postgres, json_files"),
        ("    sqlite:\n      fill: x\n", 'unknown key "event_destinations.0.sqlite.fill"; did you mean "file"?'),
        ("    postgres:\n      conninfo: host=x password=secret\n", "conninfo holds a password"),
        ("    sqlite: {file: x}\n  - name: out\n    sqlite: {file: y}\n", 'there are two destinations "out"'),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, section: str, words: str) -> None:
    server = ServerProcess.launch(tmp_path / "data", configured(tmp_path, section))
    assert server.wait() == 2
    printed = "".join(server.output)
    assert words in printed
    assert "streamgauge.yml:" in printed
    assert "secret" not in printed


def test_without_the_driver_the_server_says_what_to_install(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    (blocked / "psycopg").mkdir(parents=True)
    (blocked / "psycopg" / "__init__.py").write_text("raise ImportError")
    arguments = configured(tmp_path, "    postgres:\n      conninfo: host=nowhere\n")
    server = ServerProcess.launch(tmp_path / "data", arguments, {"PYTHONPATH": f"{SOURCE}{os.pathsep}{blocked}"})
    assert server.wait() == 2
    assert "pip install 'streamgauge[postgres]'" in "".join(server.output)
