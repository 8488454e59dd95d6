"""SQL through the real server and straight from its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streamgauge.testing.requests import Series
from streamgauge.testing.server import ServerProcess, run_command

StartServer = Callable[..., ServerProcess]
NOW = int(time.time()) * 1000
QUERY = "SELECT labels['job'] AS job, sum(value) AS total, count(*) AS n FROM metrics WHERE name = 'sql' GROUP BY 1"


def test_the_command_asks_a_server_and_reads_a_folder(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    written = [
        Series({"__name__": "sql", "job": job}, [(NOW, value), (NOW + 1, 1.0)])
        for job, value in (("é", 2.0), ("b", 3.5))
    ]
    assert server.write(written).status == 204
    shown = run_command("sql", "--server", server.url, "--format", "table", f"{QUERY} ORDER BY job")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "job  total  n\nb      4.5  2\né      3.0  2\n"
    lines = run_command("sql", "--server", server.url, f"{QUERY} HAVING job = $1", "--param", "é")
    assert json.loads(lines.stdout) == {"job": "é", "total": 3.0, "n": 2}
    file = tmp_path / "answer.parquet"
    written_to = run_command("sql", "--server", server.url, QUERY, "--format", "parquet", "--output", str(file))
    assert written_to.returncode == 0, written_to.stderr
    assert sorted(pq.read_table(file)["total"].to_pylist()) == [3.0, 4.5]
    assert server.stop() == 0
    assert (
        run_command("sql", "--data", str(server.data), "--format", "table", f"{QUERY} ORDER BY job").stdout
        == shown.stdout
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("answer")] == ["answer.parquet"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("COPY (SELECT 1) TO 'x'",), 2, "COPY is not answered here"),
        (("SELECT * FROM read_text('/etc/passwd')",), 2, "the table function read_text is not answered here"),
        (("SELECT 'x'::INT",), 1, "Could not convert string 'x' to INT32"),
        (("SELECT $1",), 2, "no value for it is given"),
        (("SELECT 1", "--output", "/nowhere/at/all"), 2, "cannot be written: no such file or directory"),
    ],
)
def test_the_command_says_what_is_wrong(
    server: ServerProcess, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run_command("sql", "--server", server.url, *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
