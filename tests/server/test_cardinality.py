"""A server that fills up: what is refused, and who is to blame."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from streamgauge.testing import requests
from streamgauge.testing.requests import Series
from streamgauge.testing.server import ServerProcess, eventually, run_command

NOW = int(time.time() * 1000)
CONFIG = """\
streamgauge:
  max_series_per_metric: [{limit}, small=1]
  max_label_values: [1000, user=2]
"""

StartServer = Callable[..., ServerProcess]


def numbered(metric: str, numbers: Iterable[int], label: str = "n", at: int = NOW) -> list[Series]:
    return [Series({"__name__": metric, "job": "api", label: str(number)}, [(at, 1.0)]) for number in numbers]


def refused(server: ServerProcess) -> dict[tuple[str, str], tuple[int, int]]:
    """Of each full metric or label how many it has and how often it was refused."""
    listed = server.data_of("/api/v1/status/limits")["refused"]
    return {(one["limit"], one["name"]): (one["now"], one["attempts"]) for one in listed}


@pytest.mark.parametrize("message", [requests.V2])
def test_limits_hold_over_a_restart_and_can_be_raised_without_one(
    start_server: StartServer, tmp_path: Path, message: str
) -> None:
    file = tmp_path / "streamgauge.yml"
    file.write_text(CONFIG.format(limit=5))
    server = start_server("--config", str(file))
    answer = server.write([*numbered("m", range(6)), *numbered("small", range(2))], message)
    assert answer.status == 400
    assert "6 samples were stored; 2 items were not: 2 metric_series_limit" in answer.text
    assert "metric m has 5 series; the limit is 5 (--max-series-per-metric)" in answer.text
    assert server.write(numbered("u", range(3), "user"), message).status == 400
    assert refused(server) == {("metric", "m"): (5, 1), ("metric", "small"): (1, 1), ("label", "user"): (2, 1)}
    assert server.metric('streamgauge_new_series_refused_total{limit="metric"}') == 2
    assert server.metric('streamgauge_refused_total{reason="label_values_limit",source="remote_write"}') == 1
    server.kill()

    server = start_server("--config", str(file))
    assert server.write(numbered("m", range(5), at=NOW + 1), message).status == 204
    assert server.write(numbered("m", [9]), message).status == 400
    limits = server.data_of("/api/v1/status/limits")
    assert (limits["max_series_per_metric"], limits["max_label_values"]) == ("5,small=1", "1000,user=2")
    (one,) = limits["refused"]
    assert one["example"] == {"__name__": "m", "job": "api", "n": "9"}
    assert NOW / 1000 <= one["first"] <= one["last"] <= time.time()
    file.write_text(CONFIG.format(limit=7))
    assert server.post("/-/reload").status == 200
    assert server.write(numbered("m", range(8)), message).status == 400
    assert server.query("count(m)", NOW / 1000)[0]["value"][1] == "7"


def test_a_target_beyond_a_limit_stays_up_and_says_so(start_server: StartServer, tmp_path: Path) -> None:
    """It scrapes itself, and one label of its own metrics has several values."""
    file = tmp_path / "streamgauge.yml"
    file.write_text(
        "scrape_configs: [{job_name: self, scrape_interval: 1s, file_sd_configs: [{files: [self.json]}]}]\n"
    )
    server = start_server("--config", str(file), "--max-label-values", "0,limit=1")
    (tmp_path / "self.json").write_text(f'[{{"targets": ["{server.url.removeprefix("http://")}"]}}]')
    assert server.post("/-/reload").status == 200

    def said() -> str:
        active = server.data_of("/api/v1/targets")["activeTargets"]
        return "".join(target["lastError"] for target in active if target["health"] == "up")

    eventually(lambda: "samples of new series were not stored: label limit has 1 values" in said())
    assert refused(server)["label", "limit"][0] == 1
    assert server.query('count(streamgauge_new_series_refused_total{job="self"})', time.time())[0]["value"][1] == "1"
    assert server.query('up{job="self"}', time.time())[0]["value"][1] == "1"


# ---- who is to blame ------------------------------------------------------------------------------------------------

MINUTE = 60_000


def explosion(end: int) -> list[Series]:
    """Series of the last two hours. In the last half an hour one label got a value for each user."""
    times = [(end - age * MINUTE, 1.0) for age in range(120, 0, -2)]
    usual = [Series({"__name__": "requests", "job": "api", "path": f"/{n}"}, times) for n in range(20)]
    quiet = [Series({"__name__": "up", "job": "api", "instance": str(n)}, times) for n in range(30)]
    gone = [Series({"__name__": "requests", "job": "old", "path": f"/{n}"}, times[:50]) for n in range(5)]
    wild = [
        Series({"__name__": "requests", "job": "api", "path": f"/user/{n}"}, [(end - 30 * MINUTE + n, 1.0)])
        for n in range(480)
    ]
    return [*usual, *quiet, *gone, *wild]


def test_what_grew_is_found_through_the_server_and_in_its_folder(start_server: StartServer) -> None:
    server = start_server()
    assert server.write(explosion(NOW)).status == 204
    since, end = "1h", f"{NOW / 1000:.3f}"
    answer = server.data_of("/api/v1/status/cardinality", {"since": since, "end": end, "order": "created"})
    (group,) = answer["groups"]
    assert (group["name"], group["series"], group["created"], group["ended"]) == ("requests", 505, 480, 485)
    assert abs(group["since"] - (NOW / 1000 - 30 * 60)) < 1
    assert group["label"] == {"name": "path", "values": 480}
    assert group["job"] == {"value": "api", "series": 480}
    assert answer["total"]["series"] == 535
    by_job = server.data_of("/api/v1/status/cardinality", {"by": "job", "match[]": "requests", "end": end})
    assert {one["name"]: one["series"] for one in by_job["groups"]} == {"api": 500, "old": 5}
    by_label = server.data_of("/api/v1/status/cardinality", {"by": "label", "end": end, "limit": "1"})
    assert [(one["name"], one["values"]) for one in by_label["groups"]] == [("path", 500)]
    (pair,) = server.data_of("/api/v1/status/cardinality", {"by": "pair", "end": end, "limit": "1"})["groups"]
    assert (pair["name"], pair["labels"], pair["series"]) == ("job=api", {"job": "api"}, 530)

    command = ("cardinality", "--since", since, "--end", end)
    shown = run_command(*command, "--server", server.url, "--format", "table")
    assert shown.returncode == 0, shown.stderr
    assert "metric requests grew from 25 to 505 series since " in shown.stdout
    assert "label path has 480 values in the new ones, 480 are from job api." in shown.stdout
    told = run_command(*command, "--server", server.url, "--by", "label", "--format", "table", "requests")
    assert "label path grew from 20 to 500 values since " in told.stdout
    assert server.stop() == 0
    offline = run_command(*command, "--data", str(server.data), "--format", "table")
    assert offline.stdout == shown.stdout
    everything = run_command(*command, "--data", str(server.data))
    assert json.loads(everything.stdout) == answer, "a pipe gets JSON"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "0"), "--since must be longer than 0"),
        (("--since", "yesterday"), "is not a duration"),
        (("--end", "soon"), "is not a time"),
        (("--by", "a,,b"), "names no label"),
        (("{a=",), "parse"),
    ],
)
def test_the_command_says_what_is_wrong(server: ServerProcess, arguments: tuple[str, ...], words: str) -> None:
    done = run_command("cardinality", "--server", server.url, *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_selector_that_is_hostile_costs_its_own_query_alone(server: ServerProcess, responsive: None) -> None:
    for selector in ("{", '{__name__=~"((a*)*)*$"}', "x" * 70_000, "\x00", "{" + "a=~'.+'," * 400 + "}"):
        answer = server.post("/api/v1/status/cardinality", {"match[]": selector})
        assert answer.status in (200, 400, 422), answer.text
    many = server.post("/api/v1/status/cardinality", [("match[]", f"m{number}") for number in range(5000)])
    assert many.status == 200, many.text
