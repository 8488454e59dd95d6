"""`streamgauge export` as one types it, from a server and from a folder: the same file, whole or not at all."""

from __future__ import annotations

import asyncio
import csv
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamgauge.clock import ManualClock
from streamgauge.model.labels import key_of
from streamgauge.testing.lives import NOON, batch_of, opened
from streamgauge.testing.server import ServerProcess, run_command

EVENTS = 2000
DAYS = 3
SAMPLES = 40
"""Of each series, over the days."""
PAYLOADS = [
    json.dumps({"n": n, "level": "ERROR" if n % 10 == 0 else "info", "text": f'"a,\né {n}'}) for n in range(EVENTS)
]


async def _fill(data: Path) -> None:
    clock = ManualClock(NOON)
    async with opened(data, clock) as (store, maintenance):
        stream = store.events.open_stream("http", "{}")
        for day in range(DAYS):
            payloads = PAYLOADS[day * EVENTS // DAYS : (day + 1) * EVENTS // DAYS]
            array = pa.array([text.encode() for text in payloads], pa.binary())
            await store.events.append_events(stream, day * EVENTS // DAYS + 1, array)
            if day == 1:
                await maintenance.events.flush(everything=True)
            await clock.advance(86_400)
        rows = [
            (key_of({"__name__": name, "job": job}), NOON + n * DAYS * 86_400_000 // SAMPLES, bits(n))
            for name in ("one", "two")
            for job in ("a", 'b"é')
            for n in range(SAMPLES)
        ]
        await store.append(batch_of(store, rows))


def bits(value: float) -> int:
    return int.from_bytes(struct.pack(">d", value), "big")


def filled(folder: Path) -> Path:
    """A data folder with events and samples of some days, partly in blocks."""
    asyncio.run(_fill(folder / "data"))
    return folder / "data"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sequence[str]]]:
    """The arguments that name where to export from."""
    served, read = filled(tmp_path_factory.mktemp("served")), filled(tmp_path_factory.mktemp("read"))
    arguments = ("--no-self-monitoring", "--retention", "0", "--event-retention", "0")
    with ServerProcess.start(served, arguments) as server:
        yield {"server": ("--server", server.url), "folder": ("--data", str(read))}


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest, places: dict[str, Sequence[str]]) -> Sequence[str]:
    return places[request.param]


def export(*arguments: str | Path) -> str:
    """What it says on stderr."""
    done = run_command("export", *map(str, arguments))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def test_all_events_in_every_format(place: Sequence[str], tmp_path: Path) -> None:
    files = {form: tmp_path / f"events.{form}" for form in ("ndjson", "csv", "parquet")}
    for file in files.values():
        assert f"{file}: {EVENTS:,} events, " in export("events", *place, "--output", file)
    rows = [json.loads(line) for line in files["ndjson"].read_text(encoding="utf-8").splitlines()]
    assert [row["stream_event_index"] for row in rows] == list(range(1, EVENTS + 1))
    assert [row["payload"] for row in rows] == [json.loads(text) for text in PAYLOADS]
    assert rows[0]["insert_datetime"] == "2023-11-14T12:00:00Z"
    with files["csv"].open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert [json.loads(row["payload"]) for row in table] == [json.loads(text) for text in PAYLOADS]
    assert sorted(table[0]) == sorted(rows[0])
    arrow = pq.read_table(files["parquet"])
    assert arrow.num_rows == EVENTS
    assert arrow["insert_datetime"].to_pylist()[-1].day == 16
    counted = duckdb.sql(
        f"SELECT count(*), sum(CAST(payload->>'n' AS BIGINT)) FROM '{files['parquet']}' WHERE severity = 'ERROR'"
    ).fetchall()
    assert counted == [(EVENTS // 10, sum(range(0, EVENTS, 10)))]
    assert sorted(tmp_path.iterdir()) == sorted(files.values())


def test_some_events(place: Sequence[str], tmp_path: Path) -> None:
    file = tmp_path / "some"
    arguments = (
        "--where",
        "payload.level = 'ERROR'",
        "--start",
        "2023-11-15T00:00:00Z",
        "--end",
        "2023-11-16T12:00:00Z",
    )
    export("events", *place, *arguments, "--format", "ndjson", "--output", file)
    found = [json.loads(line)["payload"]["n"] for line in file.read_text(encoding="utf-8").splitlines()]
    assert found == [n for n in range(0, EVENTS, 10) if n >= EVENTS // DAYS]


def test_samples_of_selectors_each_once(place: Sequence[str], tmp_path: Path) -> None:
    file = tmp_path / "samples.parquet"
    export("samples", 'one{job=~"a|x"}', "one", 'two{job!="a",none=""}', *place, "--output", file)
    rows = pq.read_table(file).to_pylist()
    found = sorted((row["name"], dict(row["labels"])["job"], row["value"]) for row in rows)
    assert found == [
        (*series, float(n)) for series in (("one", "a"), ("one", 'b"é'), ("two", 'b"é')) for n in range(SAMPLES)
    ]
    export("samples", *place, "--where", "value >= 39", "--format", "csv", "--output", file)
    with file.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert sorted((row["name"], json.loads(row["labels"])["job"]) for row in table) == [
        (name, job) for name in ("one", "two") for job in ("a", 'b"é')
    ]
    assert {row["value"] for row in table} == {"39"}


def test_nothing_is_a_file_without_rows(place: Sequence[str], tmp_path: Path) -> None:
    file = tmp_path / "none.parquet"
    assert ": 0 samples" in export("samples", "none", *place, "--output", file)
    assert pq.read_table(file).column_names == ["name", "labels", "time", "value"]


def test_more_than_one_query_may_read_is_read_by_several(tmp_path: Path) -> None:
    data = filled(tmp_path)
    arguments = ("--no-self-monitoring", "--retention", "0", "--event-retention", "0", "--query-max-samples", "20")
    with ServerProcess.start(data, arguments) as server:
        file = tmp_path / "samples.ndjson"
        export("samples", "--server", server.url, "--output", file)
        lines = file.read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(set(lines)) == 4 * SAMPLES
        done = run_command("export", "samples", "--server", server.url, "--output", str(file), "--start", "2050-01-01")
        assert done.returncode == 0, done.stderr
        assert file.read_bytes() == b""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("events", "up", "--output", "x.csv"), 2, "a SELECTOR selects samples"),
        (("events", "--output", "x.txt"), 2, "x.txt does not tell the format"),
        (("events", "--output", "x.csv", "--where", "nosuch = 1"), 2, "nosuch"),
        (("events", "--output", "x.csv", "--where", "true) UNION SELECT 1 --"), 2, "syntax error"),
        (("samples", "up{", "--output", "x.csv"), 2, "unexpected end of input inside braces"),
        (("samples", "--output", "x.csv", "--start", "5", "--end", "4"), 2, "--end is before --start"),
        (("samples", "--output", "/nowhere/x.csv"), 2, "cannot be written: no such file or directory"),
    ],
)
def test_what_cannot_be_done_leaves_no_file(
    place: Sequence[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command("export", *arguments, *place)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert list(tmp_path.iterdir()) == []
