"""Snapshots through the API of a real server, and what can be done with one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from streamgauge.store.verify import check_folder
from streamgauge.testing.requests import Series
from streamgauge.testing.server import ServerProcess, run_command

NOW = int(time.time())
PATH = "/api/v1/admin/tsdb/snapshot"


def write(server: ServerProcess, number: int) -> None:
    rows = [Series({"__name__": "m", "n": str(at)}, [(NOW * 1000 + number, float(at))]) for at in range(100)]
    assert server.write(rows).status == 204


def test_a_snapshot_has_what_was_acknowledged_and_is_a_data_folder(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_server("--enable-admin-api", data=tmp_path / "data")
    write(server, 0)
    first = server.request("POST", f"{PATH}?skip_head=true").json()["data"]["name"]
    second = server.request("PUT", PATH).json()["data"]["name"]
    write(server, 1)
    folder = tmp_path / "data" / "snapshots"
    assert {path.name for path in folder.iterdir()} == {first, second}
    assert check_folder(folder / first) == check_folder(folder / second) == []
    count = ("query", "count_over_time(m[1h])", "--time", str(NOW + 1), "--format", "csv", "--data")
    assert run_command(*count, str(folder / first)).stdout.count("\n") == 1
    asked = run_command(*count, str(folder / second)).stdout.splitlines()
    assert len(asked) == 101
    assert all(line.endswith(",1") for line in asked[1:])
    assert run_command("check", str(folder / second)).returncode == 0
    served = start_server(data=folder / second)
    assert served.value("sum(count_over_time(m[1h]))", NOW + 1) == 100
    assert server.value("sum(count_over_time(m[1h]))", NOW + 1) == 200


def test_without_the_admin_api_there_is_none(server: ServerProcess) -> None:
    answer = server.request("POST", PATH)
    assert answer.status == 503
    assert "--enable-admin-api" in answer.json()["error"]
    assert not (server.data / "snapshots").exists()
