"""`streamgauge import` of a file that SQLite 3.54 has written as the reference server has its events."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from streamgauge.testing.server import SECONDS, ServerProcess, eventually, launch_command, run_command
from streamgauge.wire.jsonb import jsonb_of

StartServer = Callable[..., ServerProcess]
FILE = Path(__file__).parents[1] / "fixtures" / "reference-events.sqlite"
EVENTS = {
    1: [
        {"n": 1, "level": "INFO", "text": 'é "quoted" é\n'},
        {"n": 3, "list": [1, 2.5, -1e-7, True, None, {}]},
        "a text",
    ],
    2: [{"n": 2, "time": "2025-03-01T10:00:05.5Z", "http": {"status": 500}}, {"n": 4, "half": 0.5, "it": "it's"}],
    7: [],
}
"""What is in it."""


def run_import(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    process = launch_command(["import", *map(str, arguments)], {"XDG_STATE_HOME": str(folder)})
    out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def stored(*place: str) -> dict[int, list[Any]]:
    """Payloads by the stream that they were of."""
    rows = run_command("sql", "SELECT stream_id, headers->>'x-imported-from' AS source FROM streams ORDER BY 1", *place)
    ids = {}
    for line in rows.stdout.splitlines():
        row = json.loads(line)
        ids[row["stream_id"]] = json.loads(row["source"])["stream_id"]
    found: dict[int, list[Any]] = {number: [] for number in ids.values()}
    rows = run_command("sql", "SELECT stream_id, payload FROM events ORDER BY stream_id, stream_event_index", *place)
    for line in rows.stdout.splitlines():
        row = json.loads(line)
        found[ids[row["stream_id"]]].append(row["payload"])
    return found


@pytest.mark.parametrize("served", [False, True])
def test_a_file_is_imported_once(start_server: StartServer, tmp_path: Path, served: bool) -> None:
    data = tmp_path / "folder"
    place = ("--server", start_server().url) if served else ("--data", str(data))
    done = run_import(tmp_path, FILE, *place)
    assert done.returncode == 0, done.stderr
    assert "importing as events-sqlite" in done.stderr
    assert "5 events of 3 streams are stored" in done.stdout
    assert "3 of them have no time of their own" in done.stdout
    assert stored(*place) == EVENTS
    grown = tmp_path / "grown"
    shutil.copy(FILE, grown)
    with closing(sqlite3.connect(grown)) as connection, connection:
        connection.execute("INSERT INTO events VALUES ('2025-03-01 11:00:00', ?, 1)", [jsonb_of('["more"]')])
    for again in (FILE, grown, FILE):
        done = run_import(tmp_path, again, *place)
        assert done.returncode == 0, done.stderr
    assert stored(*place) == {**EVENTS, 1: [*EVENTS[1], ["more"]]}
    shown = run_command("sql", "SELECT headers->>'x-imported-from' AS source FROM streams ORDER BY stream_id", *place)
    source = json.loads(json.loads(shown.stdout.splitlines()[0])["source"])
    assert source == {
        "file": FILE.name,
        "stream_id": 1,
        "start_datetime": "2025-03-01 10:00:00",
        "headers": {"host": "localhost:4318", "user-agent": "curl/8", "authorization": "[redacted]"},
    }


def test_times_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    place = ("--data", str(tmp_path / "folder"))
    done = run_import(tmp_path, FILE, "--event-time", "time", *place)
    assert done.returncode == 0, done.stderr
    assert "no time of their own" not in done.stdout
    times = run_command(
        "sql", "SELECT payload.n::INT AS n, time FROM events WHERE payload.n IS NOT NULL ORDER BY 1", *place
    )
    assert [json.loads(line)["time"] for line in times.stdout.splitlines()] == [
        "2025-03-01T10:00:00Z",
        "2025-03-01T10:00:05.5Z",
        "2025-03-01T10:00:01Z",
        "2025-03-01T10:00:07Z",
    ]


def test_an_import_that_was_killed_goes_on(start_server: StartServer, tmp_path: Path) -> None:
    large, count = tmp_path / "large", 120_000
    with closing(sqlite3.connect(large)) as connection, connection:
        connection.execute("CREATE TABLE streams(stream_id INTEGER PRIMARY KEY, headers BLOB, start_datetime TEXT)")
        connection.execute("CREATE TABLE events(insert_datetime TEXT, payload BLOB, stream_id INTEGER)")
        connection.executemany("INSERT INTO streams VALUES (?, '{}', '2025-01-01 00:00:00')", [(1,), (2,)])
        rows = [("2025-01-01 00:00:00", f'{{"n":{n}}}', n % 2 + 1) for n in range(count)]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
    server = start_server()
    first = launch_command(["import", str(large), "--server", server.url], {"XDG_STATE_HOME": str(tmp_path)})
    notes = tmp_path / "streamgauge" / "import"
    eventually(lambda: (notes.exists() and os.listdir(notes)) or first.poll() is not None)
    first.kill()
    first.communicate()
    assert first.returncode != 0
    second = run_import(tmp_path, large, "--server", server.url)
    assert second.returncode == 0, second.stderr
    assert "going on behind row " in second.stderr
    query = "SELECT count(*) AS n, count(DISTINCT payload.n) AS d, max(stream_event_index) AS i FROM events"
    counted = run_command("sql", query, "--server", server.url)
    assert json.loads(counted.stdout) == {"n": count, "d": count, "i": count // 2}
    assert os.listdir(notes) == []


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE streams(id INTEGER)")
    broken = tmp_path / "broken"
    broken.write_bytes(FILE.read_bytes()[:1500])
    for arguments, part in (
        ([other], "other is no file of events: it has no streams.headers"),
        ([broken], "broken cannot be read: "),
        ([FILE, "--event-time", "when"], '--event-time "when": write one of @timestamp, time'),
    ):
        done = run_import(tmp_path, *arguments, "--data", tmp_path / "data")
        assert (done.returncode, part in done.stderr) == (2, True), done.stderr
